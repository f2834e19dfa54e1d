//! An application's module: its tables beside Palisade's.

use palisade::Builder;
use palisade::module::Module;
use palisade::testing::{On, Plan, TestApp, settings};
use palisade_crypto::random::OsRandom;
use palisade_db::{Migration, Sql, args};
use std::sync::Arc;

palisade::on_both! {
    an_application_numbers_its_migrations_from_one => |on| super::numbers(on);
    a_module_that_is_switched_off_leaves_its_tables => |on| super::switched_off(on);
}

const NOTES: Module = Module {
    name: "notes",
    when: |settings| settings.compat.login_form,
    migrations: &[
        Migration {
            module: "notes",
            number: 1,
            name: "notes",
            sql: Sql::Both(
                "create table notes (
                     id id not null primary key,
                     user_id id not null references users (id) on delete cascade
                 )",
            ),
        },
        Migration {
            module: "notes",
            number: 2,
            name: "text",
            sql: Sql::Both("alter table notes add column said text not null default ''"),
        },
    ],
    tables: &["notes"],
    ..Module::EMPTY
};

const SWITCH: &str = "compat.login_form";

async fn with_notes(on: On) -> TestApp {
    let settings = vec![(SWITCH, "true")];
    TestApp::with(on, Plan { settings, modules: vec![NOTES], ..Plan::default() }).await
}

async fn count(app: &TestApp) -> i64 {
    app.app.db.one::<(i64,)>("select count(*) from notes", args![]).await.unwrap().0
}

/// A user with a note.
async fn with_note(app: &TestApp) -> palisade::id::UserId {
    let ann = app.user("ann@example.com").await;
    let mut tx = app.database.db().begin().await.unwrap();
    let note = "insert into notes (id, user_id, said) values ($1, $2, 'hello')";
    tx.run(note, args![app.app.new_id(), ann]).await.unwrap();
    tx.commit().await.unwrap();
    ann
}

async fn numbers(on: On) {
    let app = with_notes(on).await;
    with_note(&app).await;
    let status = app.database.db().migrations(&app.builder.migrations()).await.unwrap();
    assert_eq!((status.missing(), status.unknown_modules.len()), (0, 0));
    let own = status.migrations.iter().filter(|status| status.module == NOTES.name);
    assert_eq!(own.map(|status| status.number).collect::<Vec<_>>(), [1, 2]);
    // Palisade's own have these numbers too.
    assert!(status.migrations.iter().any(|status| status.module == "users" && status.number == 1));
    // A module that takes the name of one of Palisade's is refused, and not taken for a part of it.
    let same = Module { name: "users", ..NOTES };
    const SAME: &[Migration] =
        &[Migration { module: "users", number: 2, name: "more", sql: Sql::Both("select 1") }];
    let builder = app.builder.clone().module(Module { migrations: SAME, ..same });
    let refused =
        app.database.db().migrate(&builder.migrations(), app.clock.now()).await.unwrap_err();
    assert!(refused.to_string().contains("two modules are named users"), "{refused}");
    app.stop().await;
}

async fn switched_off(on: On) {
    let app = with_notes(on).await;
    let ann = with_note(&app).await;
    // The same program, with other settings.
    let off = Builder::new(settings(&[(SWITCH, "false")]), app.clock.clone(), Arc::new(OsRandom));
    let off = off.module(NOTES);
    assert!(!off.modules().iter().any(|module| module.name == NOTES.name));
    assert_eq!(app.database.db().migrate(&off.migrations(), app.clock.now()).await.unwrap(), []);
    let status = app.database.db().migrations(&off.migrations()).await.unwrap();
    assert_eq!((status.missing(), status.unknown_modules), (0, vec!["notes".to_owned()]));
    // And one that doesn't have the module at all.
    let other = app.second_without_modules().await;
    assert_eq!(count(&other).await, 1);
    let deleting = palisade::app::Hold::Alone(ann);
    let holds = [deleting, palisade::app::Hold::Administrators];
    let operator = palisade::app::Actor::operator();
    let mut change = other.app.change_holding(&operator, &holds).await.unwrap();
    palisade::users::delete(&mut change, ann).await.unwrap();
    change.commit_quietly("a test").await.unwrap();
    assert_eq!(count(&app).await, 0, "its rows go with their user all the same");
    other.stop().await;
    app.stop().await;
}
