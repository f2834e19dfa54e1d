//! What would have been sent.

use std::time::Duration;

use palisade_db::args;

use super::TestApp;
use crate::mail::{Post, Rendered};

/// Waits until everything that is due was sent, and empties the mailbox: the oldest first.
pub async fn letters(app: &TestApp) -> Vec<Rendered> {
    for _ in 0..400 {
        let (due,): (i64,) = app
            .app
            .db
            .one("select count(*) from outbox where sent_at is null and failed_at is null", args![])
            .await
            .unwrap();
        if due == 0 {
            let mut shown = app.app.part::<Post>().mailbox().unwrap();
            shown.reverse();
            return shown.into_iter().map(|shown| shown.letter).collect();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the letters aren't sent");
}

/// The last letter.
pub async fn letter(app: &TestApp) -> Rendered {
    letters(app).await.pop().expect("a letter")
}

/// What the link in a letter carries.
pub fn token(letter: &Rendered) -> String {
    let after = letter.text.split_once("#token=").unwrap_or_else(|| panic!("{letter:?}")).1;
    after.split_whitespace().next().unwrap().to_owned()
}

/// What the last link to this page under `/account` carries.
pub async fn link(app: &TestApp, page: &str) -> String {
    let page = format!("/account/{page}#");
    let all = letters(app).await;
    let found = all.iter().rev().find(|letter| letter.text.contains(&page));
    token(found.unwrap_or_else(|| panic!("no {page} in {all:?}")))
}
