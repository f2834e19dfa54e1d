//! `palisade user …` and `palisade setup-link`: administration from the machine itself.

use std::io::{BufRead as _, IsTerminal as _};

use palisade::app::Actor;
use palisade::http::Paging;
use palisade::id::UserId;
use palisade::registration::{self, Wanted};
use palisade::users::{self, ADMIN, Email, User, UserView, check_name};
use palisade::{App, lockout, passwords, sessions};
use palisade_crypto::secret::SecretString;
use palisade_db::Timestamp;
use serde_json::json;

use crate::cli::{Cli, RoleName, UserAction};
use crate::failure::Failure;
use crate::opening;
use crate::output::{Output, table};

/// Prints a fresh set-up link.
pub(crate) async fn setup_link(cli: &Cli, output: Output) -> Result<(), Failure> {
    let app = open(cli).await?;
    let link = registration::setup_link(&app, &Actor::operator()).await?;
    output.result(&json!({ "setup_link": link.expose() }), || {
        format!("Good once, for 30 minutes; every earlier link is void:\n{}", link.expose())
    });
    app.db.close().await;
    Ok(())
}

/// Runs one of the commands on users.
pub(crate) async fn run(cli: &Cli, output: Output, action: &UserAction) -> Result<(), Failure> {
    let app = open(cli).await?;
    match action {
        UserAction::List => list(&app, output).await?,
        UserAction::Show { user } => {
            let user = find(&app, user).await?;
            show(&app, output, &user);
        }
        UserAction::Create { email, name, role } => {
            let user = create(&app, email, name.as_deref(), *role).await?;
            show(&app, output, &user);
        }
        UserAction::Unlock { user } => {
            let user = find(&app, user).await?;
            lockout::unlock(app.change(&Actor::operator()).await?, user.id).await?;
            done(output, &user, "is unlocked; all wrong passwords are forgotten");
        }
        UserAction::Disable { user } => {
            let user = find(&app, user).await?;
            sessions::disable(app.change(&Actor::operator()).await?, user.id).await?;
            done(output, &user, "is disabled; all sessions are ended");
        }
        UserAction::Enable { user } => {
            let user = find(&app, user).await?;
            users::enable(app.change(&Actor::operator()).await?, user.id).await?;
            done(output, &user, "can sign in again");
        }
        UserAction::RevokeSessions { user } => {
            let user = find(&app, user).await?;
            let change = app.change(&Actor::operator()).await?;
            let ended = sessions::revoke_all(change, user.id).await?;
            done(output, &user, &format!("is signed out of {} sessions", ended.0));
        }
        UserAction::ResetPassword { user } => {
            let user = find(&app, user).await?;
            let password = new_password()?;
            passwords::reset(&app, &Actor::operator(), user.id, &password).await?;
            done(output, &user, "has a new password; all sessions are ended");
        }
    }
    app.db.close().await;
    Ok(())
}

async fn open(cli: &Cli) -> Result<App, Failure> {
    let loaded = opening::settings(cli)?;
    Ok(opening::open(&loaded.settings).await?.app)
}

async fn find(app: &App, named: &str) -> Result<User, Failure> {
    let user = if let Ok(id) = named.parse::<UserId>() {
        users::find(app, id).await?
    } else if let Ok(email) = Email::parse(named) {
        users::find_by_email(app, &email).await?
    } else {
        return Err(Failure::usage(format!("{named} is neither an e-mail address nor an id")));
    };
    user.ok_or_else(|| Failure::failed(format!("there is no user {named}")))
}

async fn create(
    app: &App,
    email: &str,
    name: Option<&str>,
    role: RoleName,
) -> Result<User, Failure> {
    let email = Email::parse(email).map_err(|broken| Failure::usage(broken.detail))?;
    let name = name.map(check_name).transpose();
    let name = name.map_err(|broken| Failure::usage(broken.detail))?;
    let wanted = Wanted { email, password: new_password()?, name };
    let role = (role == RoleName::Admin).then_some(ADMIN);
    let id = registration::create_user(app, &Actor::operator(), wanted, role).await?;
    let made = users::find(app, id).await?;
    made.ok_or_else(|| Failure::failed("the user was created and is gone again"))
}

/// A password: asked for twice on a terminal, else the first line of standard input.
fn new_password() -> Result<SecretString, Failure> {
    let unread = |error| Failure::failed("the password can't be read").because(error);
    if std::io::stdin().is_terminal() {
        let first = SecretString::from(rpassword::prompt_password("Password: ").map_err(unread)?);
        let again = SecretString::from(rpassword::prompt_password("Again: ").map_err(unread)?);
        if first != again {
            return Err(Failure::failed("the two passwords differ; nothing was changed"));
        }
        return Ok(first);
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(unread)?;
    let line = SecretString::from(line);
    let password = line.expose().trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err(Failure::usage("give the password on standard input, as one line"));
    }
    Ok(password.into())
}

async fn list(app: &App, output: Output) -> Result<(), Failure> {
    let mut all = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let paging = Paging::new(Some("200"), cursor.as_deref())?;
        let page = users::page(app, &paging).await?;
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

fn done(output: Output, user: &User, says: &str) {
    output.result(&json!({ "id": user.id, "email": user.email, "done": says }), || {
        format!("{} {says}.", user.email)
    });
}
