//! Routes for registering, for verifying the email address of a registration and for creating the first administrator,
//! and the pages that the links open.

use std::time::Duration;

use axum::extract::State;
use palisade_crypto::secret::SecretString;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Wanted, register, resend, set_up, verify};
use crate::access::{ANYONE, Caller};
use crate::app::App;
use crate::error::{Error, Kind, Result, Rules};
use crate::http::{Accepted, Asset, Body, Created, Html, NoContent, Routes, Taken, limit};
use crate::limits::{Key, Rule};
use crate::pages::Page;
use crate::passwords;
use crate::shape;
use crate::users::{self, Email, UserView, check_name};

/// Limits registrations, by IP address.
pub(super) const REGISTER: Rule = Rule {
    name: "register_ip",
    burst: 20,
    per: Duration::from_secs(3600),
    key: Key::Ip,
    summary: "Too many registrations from this IP address. Try again later.",
};

/// Limits attempts to use a setup link, by IP address.
pub(super) const SETUP: Rule = Rule {
    name: "setup_ip",
    burst: 20,
    per: Duration::from_secs(3600),
    key: Key::Ip,
    summary: "Too many attempts to set up the server. Try again later.",
};

/// Limits attempts to verify an email address, by the client's IP address.
pub(super) const VERIFY: Rule = Rule {
    name: "verify_ip",
    burst: 30,
    per: Duration::from_secs(3600),
    key: Key::Ip,
    summary: "Too many attempts to confirm an email address. Try again later.",
};

/// Limits requests for another confirmation email, by the client's IP address.
pub(super) const RESEND: Rule = Rule {
    name: "resend_ip",
    burst: 20,
    per: Duration::from_secs(3600),
    key: Key::Ip,
    summary: "Too many emails were requested from this IP address. Try again later.",
};

/// Limits requests for another confirmation email, by its recipient.
pub(super) const RESEND_ACCOUNT: Rule = Rule {
    name: "resend_account",
    burst: 5,
    per: Duration::from_secs(3600),
    key: Key::Account,
    summary: "Too many emails were requested for this email address. Try again later.",
};

pub(super) fn routes() -> Routes {
    Routes::at("")
        .post("/auth/register", ANYONE.limit(&REGISTER), sign_up)
        .summary(
            "Registers an account.\n\nThe response is the same whether or not the email address \
             has an account.",
        )
        .or(Kind::Denied, "registration.closed")
        .or(Kind::Unavailable, "passwords.busy")
        .post("/auth/verify-email", ANYONE.limit(&VERIFY), verify_email)
        .summary(
            "Confirms the email address of a registration, with the token from the link and the \
             password chosen at registration.",
        )
        .or(Kind::Conflict, "users.email_taken")
        .or(Kind::TooMany, "lockout.locked")
        .or(Kind::Unavailable, "passwords.busy")
        .post("/auth/verify-email/resend", ANYONE.limit(&RESEND), send_again)
        .summary(
            "Sends the confirmation email again.\n\nThe response is the same whether or not the \
             email address has an account.",
        )
        .or(Kind::TooMany, "request.too_many")
        .or(Kind::Unavailable, "mail.off")
        .post("/setup", ANYONE.limit(&SETUP), setup)
        .summary("Creates the first administrator, with the token from the setup link.")
        .or(Kind::Gone, "setup.done")
        .or(Kind::Conflict, "users.email_taken")
        .or(Kind::Unavailable, "passwords.busy")
        .and(
            Routes::root()
                .get("/setup", ANYONE, page)
                .get("/account/verify", ANYONE, verify_page)
                .get("/assets/setup.js", ANYONE, || async { SCRIPT }),
        )
}

/// The page that the setup link opens.
const SETUP_PAGE: Page = Page {
    title: "Set up Palisade",
    scripts: &["form.js", "setup.js"],
    body: include_str!("../../pages/setup.html"),
    ..Page::EMPTY
};

/// What `/setup` shows once an administrator exists.
const SETUP_DONE: Page = Page {
    title: "Set up Palisade",
    body: include_str!("../../pages/setup_done.html"),
    ..Page::EMPTY
};

async fn page(State(app): State<App>) -> Result<Html> {
    let reference = if app.settings.reference.enabled {
        "<li><a href=\"/docs\">Read the API reference and try the API</a></li>"
    } else {
        ""
    };
    let show = |page: Page| page.with_body(&app, &page.body.replace("{{reference}}", reference));
    Ok(if users::has_admin(&app).await? { show(SETUP_DONE).gone() } else { show(SETUP_PAGE) })
}

const SCRIPT: Asset = Asset {
    media_type: "text/javascript; charset=utf-8",
    body: include_str!("../../pages/setup.js"),
};
/// The page that the email verification link opens.
const VERIFY_PAGE: Page = Page {
    title: "Confirm your email address",
    scripts: &["form.js", "account.js"],
    body: include_str!("../../pages/verify.html"),
    ..Page::EMPTY
};

async fn verify_page(State(app): State<App>) -> Html {
    VERIFY_PAGE.show(&app)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RegisterBody {
    #[schemars(with = "shape::EmailAddress")]
    email: String,
    /// At least 15 characters by default, at most 128 code points.
    #[schemars(with = "shape::Password", example = &"seven purple teapots orbit")]
    password: SecretString,
    /// The name of the user.
    #[schemars(with = "Option<shape::Label>")]
    name: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SetupBody {
    /// The part of the setup link after `token=`.
    #[schemars(with = "shape::Secret")]
    token: SecretString,
    #[schemars(with = "shape::EmailAddress")]
    email: String,
    /// At least 15 characters by default, at most 128 code points.
    #[schemars(with = "shape::Password", example = &"seven purple teapots orbit")]
    password: SecretString,
    /// The name of the user.
    #[schemars(with = "Option<shape::Label>")]
    name: Option<String>,
}

/// Checks the email address, the length of the password and the name, and reports all errors together.
fn wanted(app: &App, email: &str, password: SecretString, name: Option<&str>) -> Result<Wanted> {
    let mut rules = Rules::new();
    let email = rules.check("/email", Email::parse(email));
    rules.check("/password", passwords::check_form(app, &password));
    let name = rules.check("/name", name.map(check_name).transpose());
    rules.all(email.zip(name).map(|(email, name)| Wanted { email, password, name }))
}

async fn sign_up(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<RegisterBody>,
) -> Result<Accepted<Taken>> {
    let wanted = wanted(&app, &body.email, body.password, body.name.as_deref())?;
    register(&app, &caller.actor, wanted).await?;
    Ok(Accepted(Taken::default()))
}

async fn setup(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<SetupBody>,
) -> Result<Created<UserView>> {
    let wanted = wanted(&app, &body.email, body.password, body.name.as_deref())?;
    let user = set_up(&app, &caller.actor, &body.token, wanted).await?;
    let user = users::find(&app, user).await?.ok_or_else(Error::not_found)?;
    Ok(Created(UserView::new(&user, app.clock.now())))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct VerifyBody {
    /// The part of the link after `token=`.
    #[schemars(with = "shape::Secret")]
    token: SecretString,
    /// The password chosen at registration.
    #[schemars(with = "shape::Password", example = &"seven purple teapots orbit")]
    password: SecretString,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ResendBody {
    #[schemars(with = "shape::EmailAddress")]
    email: String,
}

async fn verify_email(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<VerifyBody>,
) -> Result<NoContent> {
    verify(&app, &caller.actor, &body.token, &body.password).await?;
    Ok(NoContent)
}

async fn send_again(
    State(app): State<App>,
    caller: Caller,
    Body(body): Body<ResendBody>,
) -> Result<Accepted<Taken>> {
    let email = Email::parse(&body.email).map_err(|broken| broken.at("/email"))?;
    limit(&app, &RESEND_ACCOUNT, app.limiter.account(email.key()))?;
    resend(&app, &caller.actor, &email).await?;
    Ok(Accepted(Taken::default()))
}
