//! The routes that administrators use to let a user choose a password, and the page behind the link.

use std::time::Duration;

use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Invitation, invite, send_link};
use crate::access::{ANYONE, Caller, needs};
use crate::app::{App, Hold};
use crate::error::{Error, Kind, Result, Rules};
use crate::http::{Body, Created, Html, Id, NoContent, Routes, limit};
use crate::id::UserId;
use crate::limits::{Key, Rule};
use crate::pages::Page;
use crate::shape;
use crate::users::{self, Email, UserView};

/// Limits invitations and links to choose a password, by the account of the administrator who sends them.
pub(super) const INVITE: Rule = Rule {
    name: "invite_account",
    burst: 100,
    per: Duration::from_secs(3600),
    key: Key::Account,
    summary: "Too many invitations and reset links. Try again later.",
};

pub(super) fn routes() -> Routes {
    Routes::at("/users")
        .post("/", needs(users::WRITE).fresh(), invite_user)
        .summary("Creates a user and sends them a link to choose a password.\n\nThe link is valid \
                  for a week. `POST /auth/password/reset` accepts its token.\n\nYou must hold all \
                  permissions of the roles. For a role with grants on resources, you must also \
                  hold the role itself or `resources:write`.")
        .or(Kind::Denied, "access.exceeds_own")
        .or(Kind::Conflict, "users.email_taken")
        .or(Kind::TooMany, "request.too_many")
        .or(Kind::Unavailable, "mail.off")
        .post("/{id}/reset-password", needs(users::WRITE).fresh(), send_reset)
        .summary(
            "Sends a user a link to choose a new password.\n\nThe link is valid for a week. The password and \
             the sessions remain valid until the link is used.",
        )
        .or(Kind::Denied, "access.exceeds_own")
        .or(Kind::Conflict, "users.disabled")
        .or(Kind::Conflict, "users.service_account")
        .or(Kind::TooMany, "request.too_many")
        .or(Kind::Unavailable, "mail.off")
        .and(Routes::root().get("/account/invite", ANYONE, page))
}

/// The page behind the link, where users choose their first password or a new one.
const PAGE: Page = Page {
    title: "Choose a password",
    scripts: &["form.js", "account.js"],
    body: include_str!("../../pages/invite.html"),
    ..Page::EMPTY
};

async fn page(State(app): State<App>) -> Html {
    PAGE.show(&app)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct InviteBody {
    #[schemars(with = "shape::EmailAddress")]
    email: String,
    /// The name of the user.
    #[schemars(with = "Option<shape::Label>")]
    name: Option<String>,
    /// The roles that the user gets in addition to `user`.
    #[serde(default)]
    #[schemars(with = "Vec<shape::Name>", length(max = 50))]
    roles: Vec<String>,
}

async fn invite_user(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<InviteBody>,
) -> Result<Created<UserView>> {
    let mut rules = Rules::new();
    let email = rules.check("/email", Email::parse(&body.email));
    let name = rules.check("/name", body.name.as_deref().map(users::check_name).transpose());
    let (email, name) = rules.all(email.zip(name))?;
    limit(&app, &INVITE, app.limiter.account(&caller.signed_in()?.user.to_string()))?;
    let invitation = Invitation { email, name, roles: body.roles };
    let user = invite(&app, &caller.actor, invitation).await?;
    let user = users::find(&app, user).await?.ok_or_else(Error::not_found)?;
    Ok(Created(UserView::new(&user, app.clock.now())))
}

async fn send_reset(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<UserId>,
) -> Result<NoContent> {
    let holds = [Hold::Shared(id)];
    let (change, _) = users::change_manageable(&app, &caller, id, &holds).await?;
    limit(&app, &INVITE, app.limiter.account(&caller.signed_in()?.user.to_string()))?;
    send_link(change, id).await?;
    Ok(NoContent)
}
