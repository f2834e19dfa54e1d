//! A challenge belongs to one step.

use axum::http::StatusCode;
use palisade::testing::passkey::{self, MINE, ORIGIN, key, register};
use palisade::testing::{On, TestApp, place, unlimited};
use serde_json::json;

use crate::mfa_changes::ME;

palisade::on_both! {
    a_challenge_of_one_step_is_none_of_another => |on| super::purposes(on);
}

const AGAIN: &str = "/api/v1/auth/reauthenticate";

/// Two steps of one session, which nothing but their purpose tells apart.
async fn purposes(on: On) {
    let app = TestApp::with(on, unlimited()).await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let mut key = key();
    assert_eq!(register(&ann, &mut key).await.status, StatusCode::CREATED);
    let mut making = ann.act(&format!("{MINE}/begin")).await.body;
    let mut proving = ann.act(&format!("{AGAIN}/passkey/begin")).await.body;
    let for_making = std::mem::take(&mut making["challenge"]);
    making["challenge"] = std::mem::replace(&mut proving["challenge"], for_making);

    let body = json!({ "credential": key.authenticate(&proving, ORIGIN) });
    assert_eq!(place(&ann.post(AGAIN, body).await), (422, "/credential", "mfa.wrong_passkey"));
    let body = json!({ "credential": passkey::key().register(&making, ORIGIN) });
    let made = ann.post(&format!("{MINE}/finish"), body).await;
    assert_eq!(place(&made), (422, "/credential/response/clientDataJSON", "mfa.bad_passkey"));
    assert_eq!(ann.get(ME).await.body["mfa"]["passkeys"], 1);
    app.stop().await;
}
