//! The emails that would have been sent.

use std::time::Duration;

use palisade_db::args;

use super::TestApp;
use crate::mail::{Post, Rendered};

/// Waits until all emails that are due have been sent, and returns those in the mailbox, oldest first.
pub async fn emails(app: &TestApp) -> Vec<Rendered> {
    for _ in 0..400 {
        let (due,): (i64,) = app
            .app
            .db
            .one("select count(*) from outbox where sent_at is null and failed_at is null", args![])
            .await
            .unwrap();
        if due == 0 {
            let mut shown = app.app.state::<Post>().mailbox().unwrap();
            shown.reverse();
            return shown.into_iter().map(|shown| shown.email).collect();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the emails were not sent in time");
}

/// Returns the last email.
pub async fn newest_email(app: &TestApp) -> Rendered {
    emails(app).await.pop().expect("an email")
}

/// Returns the token in the link of an email.
pub fn token(mail: &Rendered) -> String {
    let after = mail.text.split_once("#token=").unwrap_or_else(|| panic!("{mail:?}")).1;
    after.split_whitespace().next().unwrap().to_owned()
}

/// Returns the token in the last link to this page under `/account`.
pub async fn link(app: &TestApp, page: &str) -> String {
    let page = format!("/account/{page}#");
    let all = emails(app).await;
    let found = all.iter().rev().find(|mail| mail.text.contains(&page));
    token(found.unwrap_or_else(|| panic!("no link to {page} in {all:?}")))
}
