//! Checks the facts that other slices store in the rows of users against the tables of those slices, and that every
//! permission belongs to an existing role.

use palisade_db::{Timestamp, args};

use super::TestApp;

type Row = (String, bool, i64, i64, Option<Timestamp>, i64, i64, i64, Option<Timestamp>);

/// Asserts that every row of `users` agrees with the tables of the other slices at this moment, and that every row of
/// `role_permissions` has its role. [`TestApp::stop`] calls this at the end of a test.
pub async fn recount(app: &TestApp) {
    // A test may have closed the app's own handle of the database.
    let db = app.database.db();
    let rows: Vec<Row> = db
        .all(
            "select u.email, u.has_totp, u.passkeys, u.recovery_codes_left, u.locked_until,
                (select count(*) from totp_secrets t where t.user_id = u.id),
                (select count(*) from passkeys k where k.user_id = u.id),
                (select count(*) from recovery_codes c where c.user_id = u.id and c.used_at is null),
                (select locked_until from lockout_counts c where c.user_id = u.id and c.client = '')
             from users u",
            args![],
        )
        .await
        .unwrap();
    let now = app.clock.now();
    // A lock that has expired may still be stored.
    let in_force = |until: Option<Timestamp>| until.filter(|until| *until > now);
    for (email, has_totp, passkeys, codes, until, totp, counted, left, lock) in rows {
        let written = (has_totp, passkeys, codes, in_force(until));
        assert_eq!(written, (totp > 0, counted, left, in_force(lock)), "{email}");
    }
    let sql = "select count(*) from role_permissions p
        where not exists (select 1 from roles r where r.name = p.role)";
    let (of_no_role,): (i64,) = db.one(sql, args![]).await.unwrap();
    assert_eq!(of_no_role, 0, "permissions of roles that don't exist");
}
