//! The list of users: all of them, or those whose email address or name begins with a given text.

use palisade_db::{Timestamp, args};
use uuid::Uuid;

use super::{User, UserRow, email, user};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::{Cursor, List, Paging};

/// Returns a page of users, oldest first. With `query`, the page lists the users whose email address begins with it,
/// sorted by email address, followed by the users whose name begins with it, sorted by name. Both searches use an
/// index, whatever the number of users.
///
/// # Errors
/// Fails with `request.bad_cursor` if the search can't continue from the cursor, or if the database fails.
pub async fn page(app: &App, query: Option<&str>, paging: &Paging) -> Result<List<User>> {
    let rows = match query {
        None => oldest_first(app, paging).await?,
        Some(query) => search(app, &Prefix::new(query), paging).await?,
    };
    let users = rows.into_iter().map(|row| user(app, row)).collect();
    Ok(List::page(users, paging, |user| Cursor(user.created_at, user.id.0)))
}

async fn oldest_first(app: &App, paging: &Paging) -> Result<Vec<UserRow>> {
    let Cursor(at, id) = paging.after.unwrap_or(Cursor(Timestamp::from_micros(0), Uuid::nil()));
    let rows = app
        .db
        .all(
            select_users!("where (created_at, id) > ($1, $2) order by created_at, id limit $3"),
            args![at, id, paging.rows()],
        )
        .await?;
    Ok(rows)
}

/// Returns a page of service accounts, oldest first.
pub(super) async fn services(app: &App, paging: &Paging) -> Result<List<User>> {
    let Cursor(at, id) = paging.after.unwrap_or(Cursor(Timestamp::from_micros(0), Uuid::nil()));
    let rows: Vec<UserRow> = app
        .db
        .all(
            select_users!(
                "where service = $4 and (created_at, id) > ($1, $2) order by created_at, id limit $3"
            ),
            args![at, id, paging.rows(), true],
        )
        .await?;
    let users = rows.into_iter().map(|row| user(app, row)).collect();
    Ok(List::page(users, paging, |user| Cursor(user.created_at, user.id.0)))
}

/// The keys that begin with a given text, as a range.
struct Prefix {
    from: String,
    to: String,
}

impl Prefix {
    fn new(query: &str) -> Self {
        let from = email::name_key(query.trim_matches(email::is_margin));
        // No text sorts after the last code point.
        let to = format!("{from}\u{10ffff}");
        Self { from, to }
    }
}

/// Where a search continues: after this email address, or after this name and id.
struct After {
    email: Option<String>,
    name: String,
    id: Uuid,
}

impl After {
    /// Continues after this email address, and with the first name that matches. The name is needed because PostgreSQL
    /// starts reading the index where the row comparison says, regardless of other conditions on the first column.
    fn begin(prefix: &Prefix, email: String) -> Self {
        Self { email: Some(email), name: prefix.from.clone(), id: Uuid::nil() }
    }
}

async fn search(app: &App, prefix: &Prefix, paging: &Paging) -> Result<Vec<UserRow>> {
    let after = after(app, prefix, paging).await?;
    let mut rows = match &after.email {
        Some(email) => by_email(app, prefix, email, paging.rows()).await?,
        None => Vec::new(),
    };
    let left = paging.rows() - i64::try_from(rows.len()).unwrap_or(0);
    if left > 0 {
        rows.extend(by_name(app, prefix, &after, left).await?);
    }
    Ok(rows)
}

async fn after(app: &App, prefix: &Prefix, paging: &Paging) -> Result<After> {
    let Some(Cursor(_, id)) = paging.after else {
        return Ok(After::begin(prefix, String::new()));
    };
    let last: Option<(String, Option<String>)> =
        app.db.maybe("select email_key, name_key from users where id = $1", args![id]).await?;
    let Some((email, name)) = last else {
        let detail = "The user at which this page starts no longer exists. Start the search again.";
        return Err(Error::bad_field("cursor", "request.bad_cursor", detail));
    };
    if email.starts_with(&prefix.from) {
        return Ok(After::begin(prefix, email));
    }
    Ok(After { email: None, name: name.unwrap_or_default(), id })
}

async fn by_email(app: &App, prefix: &Prefix, after: &str, limit: i64) -> Result<Vec<UserRow>> {
    let rows = app
        .db
        .all(
            select_users!(
                "where email_key >= $1 and email_key < $2 and email_key > $3
             order by email_key limit $4"
            ),
            args![prefix.from.clone(), prefix.to.clone(), after, limit],
        )
        .await?;
    Ok(rows)
}

async fn by_name(app: &App, prefix: &Prefix, after: &After, limit: i64) -> Result<Vec<UserRow>> {
    let rows = app
        .db
        .all(
            select_users!(
                "where (name_key, id) > ($3, $4) and name_key < $2
                and not (email_key >= $1 and email_key < $2)
             order by name_key, id limit $5"
            ),
            args![prefix.from.clone(), prefix.to.clone(), after.name.clone(), after.id, limit],
        )
        .await?;
    Ok(rows)
}
