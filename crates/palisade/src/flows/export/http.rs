//! `GET /users/me/export`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;

use super::{Export, export};
use crate::access::{Caller, SIGNED_IN};
use crate::app::App;
use crate::error::{Kind, Result};
use crate::http::{Routes, limit};
use crate::limits::{Key, Rule};

/// Limits exports, by account, because each one reads everything stored about the user.
pub(super) const EXPORT: Rule = Rule {
    name: "export_account",
    burst: 5,
    per: Duration::from_secs(3600),
    key: Key::Account,
    summary: "Too many exports of this account. Try again later.",
};

pub(super) fn routes() -> Routes {
    Routes::at("/users")
        .get("/me/export", SIGNED_IN, take_out)
        .summary("Exports all data that is stored about the signed-in user.")
        .or(Kind::TooMany, "request.too_many")
}

async fn take_out(State(app): State<App>, caller: Caller) -> Result<Json<Export>> {
    limit(&app, &EXPORT, app.limiter.account(&caller.signed_in()?.user.to_string()))?;
    export(&app, &caller).await.map(Json)
}
