//! `palisade user …` and `palisade setup-link`: administration on the server machine.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use palisade::app::{Actor, Hold};
use palisade::files;
use palisade::http::Paging;
use palisade::id::UserId;
use palisade::invitations::{self, Invitation};
use palisade::registration::{self, Wanted};
use palisade::roles::{self, RoleName};
use palisade::users::{self, Email, User, UserView, check_name};
use palisade::visible::visible;
use palisade::{App, deletion, lockout, mfa, passwords, sessions};
use palisade_crypto::secret::SecretString;
use palisade_db::Timestamp;
use serde_json::json;

use crate::cli::{Cli, UserAction};
use crate::failure::Failure;
use crate::opening;
use crate::output::{Output, table};
use crate::sources;

/// Prints a new setup link.
pub(crate) async fn setup_link(cli: &Cli, output: Output) -> Result<(), Failure> {
    let show = async |app: &App| {
        let link = registration::setup_link(app, &Actor::operator()).await?;
        // Printed before the command ends: its end may fail, and the earlier links are already void.
        output.result(&json!({ "setup_link": link.expose() }), || {
            format!(
                "Earlier links no longer work. This link works once and expires after 30 minutes:\n{}",
                link.expose()
            )
        });
        Ok(())
    };
    with_app(cli, output, show).await
}

/// Runs a subcommand of `palisade user`.
pub(crate) async fn run(cli: &Cli, output: Output, action: &UserAction) -> Result<(), Failure> {
    with_app(cli, output, async |app| run_on(app, output, action).await).await
}

async fn run_on(app: &App, output: Output, action: &UserAction) -> Result<(), Failure> {
    match action {
        UserAction::List { query } => list(app, output, query.as_deref()).await?,
        UserAction::Create { email, name, role, invite } => {
            let new = New { email, name: name.as_deref(), roles: role, invite: *invite };
            let user = create(app, new).await?;
            show(app, output, &user);
        }
        UserAction::Show { user } => {
            let user = find(app, user).await?;
            show(app, output, &user);
        }
        UserAction::RevokeSessions { user: None, yes, .. } => {
            revoke_everyone(app, output, *yes).await?;
        }
        UserAction::Disable { user }
        | UserAction::Enable { user }
        | UserAction::Unlock { user }
        | UserAction::RevokeSessions { user: Some(user), .. }
        | UserAction::ResetMfa { user }
        | UserAction::ResetPassword { user, .. }
        | UserAction::Delete { user, .. }
        | UserAction::GrantRole { user, .. }
        | UserAction::RevokeRole { user, .. } => {
            let user = find(app, user).await?;
            let detail = act(app, &user, action).await?;
            done(output, &user, &detail);
        }
    }
    Ok(())
}

/// Performs an action on a user and returns the result as the end of a sentence about the user.
async fn act(app: &App, user: &User, action: &UserAction) -> Result<String, Failure> {
    let operator = Actor::operator();
    let alone = [Hold::Alone(user.id), Hold::Administrators];
    Ok(match action {
        UserAction::List { .. } | UserAction::Create { .. } | UserAction::Show { .. } => {
            String::new()
        }
        UserAction::Unlock { .. } => {
            lockout::unlock(
                app.change_holding(&operator, &[Hold::Shared(user.id)]).await?,
                user.id,
            )
            .await?;
            "is unlocked; the counts of wrong passwords and codes are reset".to_owned()
        }
        UserAction::Disable { .. } => {
            sessions::disable(app.change_holding(&operator, &alone).await?, user.id).await?;
            "is disabled; all sessions have ended".to_owned()
        }
        UserAction::Enable { .. } => {
            users::enable(app.change_holding(&operator, &[Hold::Shared(user.id)]).await?, user.id)
                .await?;
            "can sign in again".to_owned()
        }
        UserAction::RevokeSessions { .. } => {
            let ended =
                sessions::revoke_all(app.change_holding(&operator, &alone).await?, user.id).await?;
            format!("is signed out, and all API keys are revoked; sessions ended: {}", ended.0)
        }
        UserAction::ResetMfa { .. } => {
            mfa::reset(app.change_holding(&operator, &alone).await?, user.id).await?;
            "no longer has a second factor; all sessions have ended".to_owned()
        }
        UserAction::ResetPassword { invite: true, .. } => {
            let shared = [Hold::Shared(user.id)];
            invitations::send_link(app.change_holding(&operator, &shared).await?, user.id).await?;
            "gets an email with a link, valid for a week, to choose a password".to_owned()
        }
        UserAction::ResetPassword { invite: false, .. } => {
            passwords::reset(app, &operator, user.id, &new_password()?).await?;
            "has a new password; all sessions have ended, and all API keys are revoked".to_owned()
        }
        UserAction::Delete { yes, .. } => {
            let mail = visible(&user.email);
            let question = format!("Permanently delete {mail} and all their data?");
            confirm(&question, *yes, "nothing was deleted")?;
            deletion::delete(app.change_holding(&operator, &alone).await?, user).await?;
            "is deleted".to_owned()
        }
        UserAction::GrantRole { role, .. } => grant_role(app, user, role).await?,
        UserAction::RevokeRole { role, .. } => revoke_role(app, user, role).await?,
    })
}

async fn revoke_everyone(app: &App, output: Output, yes: bool) -> Result<(), Failure> {
    const QUESTION: &str =
        "Sign out every user and revoke every API key, including those of service accounts?";
    confirm(QUESTION, yes, "no session was ended")?;
    let ended = sessions::revoke_everyone(app, &Actor::operator()).await?;
    let (accounts, sessions) = (ended.accounts, ended.sessions);
    output.result(&json!({ "accounts": accounts, "sessions": sessions }), || {
        format!("Sessions ended: {sessions}. Accounts whose credentials were revoked: {accounts}.")
    });
    Ok(())
}

async fn grant_role(app: &App, user: &User, name: &str) -> Result<String, Failure> {
    let role = named_role(app, name).await?;
    let change = app.change_holding(&Actor::operator(), &[Hold::Shared(user.id)]).await?;
    roles::grant(change, user.id, &role).await?;
    Ok(format!("has the role {name}"))
}

async fn revoke_role(app: &App, user: &User, name: &str) -> Result<String, Failure> {
    let role = named_role(app, name).await?;
    if !user.roles.iter().any(|held| held == name) {
        return Err(Failure::failed(format!("{} doesn't have the role {name}", user.email)));
    }
    let change = app.change_holding(&Actor::operator(), &roles::held_for_revoking(user.id)).await?;
    roles::revoke(change, user.id, &role).await?;
    Ok(format!("no longer has the role {name}"))
}

async fn with_app<T>(
    cli: &Cli,
    output: Output,
    command: impl AsyncFnOnce(&App) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let loaded = sources::settings(cli)?;
    opening::with_app(&loaded.settings, output, command).await
}

/// Finds the named user. Errors don't repeat the argument, which may be a misplaced secret.
async fn find(app: &App, named: &str) -> Result<User, Failure> {
    let user = if let Ok(id) = named.parse::<UserId>() {
        users::find(app, id).await?
    } else if let Ok(email) = Email::parse(named) {
        users::find_by_email(app, &email).await?
    } else {
        return Err(Failure::usage("EMAIL_OR_ID is neither an email address nor an id"));
    };
    user.ok_or_else(|| Failure::failed("there is no user with this email address or id"))
}

/// A user to create.
struct New<'a> {
    email: &'a str,
    name: Option<&'a str>,
    roles: &'a [String],
    invite: bool,
}

async fn create(app: &App, new: New<'_>) -> Result<User, Failure> {
    let email = Email::parse(new.email).map_err(|broken| Failure::usage(broken.detail))?;
    let name = new.name.map(check_name).transpose();
    let name = name.map_err(|broken| Failure::usage(broken.detail))?;
    for role in new.roles {
        named_role(app, role).await?;
    }
    let (operator, roles) = (Actor::operator(), new.roles.to_vec());
    let id = if new.invite {
        let invitation = Invitation { email, name, roles };
        invitations::invite(app, &operator, invitation).await?
    } else {
        let wanted = Wanted { email, password: new_password()?, name };
        registration::create_user(app, &operator, wanted, roles).await?
    };
    let made = users::find(app, id).await?;
    made.ok_or_else(|| Failure::failed("the user was created, but no longer exists"))
}

/// Finds the named role. Errors don't repeat the argument, which may be a misplaced secret.
async fn named_role(app: &App, name: &str) -> Result<RoleName, Failure> {
    let unknown = || async {
        let known = roles::list(app).await?;
        let known: Vec<String> = known.into_iter().map(|role| role.name).collect();
        Ok(Failure::usage(format!("there is no such role; the roles are: {}", known.join(", "))))
    };
    match name.parse::<RoleName>() {
        Ok(role) if roles::find(app, &role).await?.is_some() => Ok(role),
        _ => Err(unknown().await.unwrap_or_else(|failure: Failure| failure)),
    }
}

/// Asks a question if standard input is a terminal. Any answer except `y` is a failure with the text `refused`.
fn confirm(question: &str, yes: bool, refused: &'static str) -> Result<(), Failure> {
    if yes || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    let unread = |error| Failure::failed("the answer can't be read").because(error);
    let question = format!("{question} [y/N] ");
    std::io::stderr().write_all(question.as_bytes()).map_err(unread)?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(unread)?;
    if line.trim().eq_ignore_ascii_case("y") {
        return Ok(());
    }
    Err(Failure::failed(refused))
}

/// Reads a password: prompts for it twice on a terminal, otherwise reads the first line of standard input, without a byte
/// order mark and without white space at its end, which editors and shells add.
fn new_password() -> Result<SecretString, Failure> {
    let unread = |error| Failure::failed("the password can't be read").because(error);
    if std::io::stdin().is_terminal() {
        let first = SecretString::from(rpassword::prompt_password("Password: ").map_err(unread)?);
        let again = SecretString::from(rpassword::prompt_password("Repeat: ").map_err(unread)?);
        if first != again {
            return Err(Failure::failed("the two passwords differ; nothing was changed"));
        }
        return Ok(first);
    }
    let mut line = Vec::new();
    std::io::stdin().lock().read_until(b'\n', &mut line).map_err(unread)?;
    let line = SecretString::from(files::text(line).map_err(unread)?);
    let password = line.expose().trim_end();
    if password.is_empty() {
        return Err(Failure::usage("pass the password on standard input, as one line"));
    }
    Ok(password.into())
}

async fn list(app: &App, output: Output, query: Option<&str>) -> Result<(), Failure> {
    let mut all = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let paging = Paging::new(Some("200"), cursor.as_deref())?;
        let page = users::page(app, query, &paging).await?;
        all.extend(page.items);
        match page.next_cursor {
            Some(next) => cursor = Some(next.to_string()),
            None => break,
        }
    }
    let now = app.clock.now();
    let views: Vec<UserView> = all.iter().map(|user| UserView::new(user, now)).collect();
    output.result(&json!({ "items": views }), || {
        let rows: Vec<Vec<String>> = all.iter().map(|user| row(user, now)).collect();
        table(&["ID", "EMAIL", "NAME", "ROLES", "STATE", "LAST SIGN-IN"], &rows)
    });
    Ok(())
}

fn row(user: &User, now: Timestamp) -> Vec<String> {
    let locked = user.locked_until.is_some_and(|until| until > now);
    let state = match (user.disabled, locked) {
        (true, _) => "disabled",
        (false, true) => "locked",
        (false, false) => "active",
    };
    vec![
        user.id.to_string(),
        user.email.clone(),
        user.name.clone().unwrap_or_default(),
        user.roles.join(" "),
        state.to_owned(),
        user.last_login_at.map(|at| at.to_string()).unwrap_or_default(),
    ]
}

fn show(app: &App, output: Output, user: &User) {
    let now = app.clock.now();
    output.result(&UserView::new(user, now), || {
        table(&["ID", "EMAIL", "NAME", "ROLES", "STATE", "LAST SIGN-IN"], &[row(user, now)])
    });
}

fn done(output: Output, user: &User, detail: &str) {
    output.result(&json!({ "id": user.id, "email": user.email, "done": detail }), || {
        format!("{} {detail}.", user.email)
    });
}
