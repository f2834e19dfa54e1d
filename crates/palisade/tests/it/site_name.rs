//! The name of the site in what leaves the server: authenticator apps, passkeys, emails.

use palisade::testing::mailbox::newest_email;
use palisade::testing::passkey::begin;
use palisade::testing::{On, Plan, TestApp};
use serde_json::json;

async fn named(name: &'static str) -> TestApp {
    let settings = vec![("site.name", name)];
    TestApp::with(On::Sqlite, Plan { settings, ..Plan::default() }).await
}

#[tokio::test]
async fn apps_passkeys_and_emails_show_the_name_of_the_site() {
    let app = named("Büro & <Co>: 100%?").await;
    app.user("ann@example.com").await;
    let ann = app.token("ann@example.com").await;
    let made = ann.act("/api/v1/users/me/totp").await;
    // A colon would end the issuer; everything else is escaped.
    let uri = made.text("otpauth_uri");
    let name = "B%C3%BCro%20%26%20%3CCo%3E%20%20100%25%3F";
    assert!(uri.starts_with(&format!("otpauth://totp/{name}:ann%40example.com?secret=")), "{uri}");
    assert!(uri.ends_with(&format!("&issuer={name}")), "{uri}");
    let options = ann.act("/api/v1/users/me/passkeys/begin").await.body;
    assert_eq!(options["rp"], json!({ "id": "localhost", "name": "Büro & <Co>: 100%?" }));
    let body = json!({ "email": "ann@example.com" });
    app.anyone().post("/api/v1/auth/password/forgot", body).await;
    let mail = newest_email(&app).await;
    assert_eq!(mail.subject, "Choose a new password for Büro & <Co>: 100%?");
    assert!(mail.text.contains("your account at Büro & <Co>: 100%?"), "{}", mail.text);
    assert!(mail.html.contains("your account at Büro &amp; &lt;Co&gt;: 100%?"), "{}", mail.html);
    // The link leads to the server and not to the name.
    assert!(mail.text.contains("http://localhost:8000/account/reset#token="));
    app.stop().await;
}

/// The longest name, of the largest letters, still fits into a QR code.
#[tokio::test]
async fn the_longest_name_fits_into_a_qr_code() {
    let app = named(Box::leak("😀".repeat(64).into_boxed_str())).await;
    let email = format!("{}@example.com", "a".repeat(64));
    app.user(&email).await;
    let ann = app.token(&email).await;
    let made = ann.act("/api/v1/users/me/totp").await;
    assert!(made.text("qr_svg").contains("<svg"));
    let _ = begin(&ann).await;
    app.stop().await;
}
