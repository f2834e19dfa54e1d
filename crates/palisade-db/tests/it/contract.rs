//! The statements that must mean the same on both databases.

use palisade_db::testing::TestDb;
use palisade_db::{Db, DbErrorKind, FromRow, Migration, Sql, Timestamp, args};
use uuid::Uuid;

const TABLES: &[Migration] = &[Migration {
    module: "tests",
    number: 1,
    name: "things",
    sql: Sql::Both(
        "create table owners (id id not null primary key, email text not null unique);
         create table things (
             id id not null primary key,
             owner_id id references owners (id),
             name text not null,
             size bigint not null default 0 check (size >= 0),
             ok flag not null default false,
             seal bytes,
             used_at instant,
             made_at instant not null
         );
         create unique index things_name on things (lower(name));",
    ),
}];

const INSERT: &str = "insert into things (id, name, size, ok, seal, used_at, made_at)
    values ($1, $2, $3, $4, $5, $6, $7)";

const NOON: Timestamp = Timestamp::from_micros(1_700_000_000_000_001);

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

async fn with_five_things(db: &Db) {
    db.migrate(TABLES, NOON).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    for (number, name) in [(1, "Ash"), (2, "birch"), (3, "cedar_1"), (4, "Dogwood"), (5, "élan")] {
        let seal = (number % 2 == 0).then(|| vec![0, number as u8, 255]);
        let used = (number == 5).then_some(NOON);
        let made = Timestamp::from_seconds(i64::from(number / 2));
        let args =
            args![id(number as u128), name, i64::from(number * 10), number == 2, seal, used, made];
        assert_eq!(tx.run(INSERT, args).await.unwrap(), 1);
    }
    tx.commit().await.unwrap();
}

async fn all<T: FromRow>(db: &Db, sql: &'static str, args: palisade_db::Args) -> Vec<T> {
    db.all(sql, args).await.unwrap_or_else(|error| panic!("{:?} {sql}: {error:?}", db.backend()))
}

#[tokio::test]
async fn every_type_comes_back_as_it_was_bound() {
    TestDb::each(|db| async move {
        with_five_things(&db).await;
        type Thing =
            (Uuid, Option<Uuid>, String, i64, bool, Option<Vec<u8>>, Option<Timestamp>, Timestamp);
        let rows = all::<Thing>(&db, "select * from things order by id", args![]).await;
        let seconds = Timestamp::from_seconds;
        assert_eq!(rows[0], (id(1), None, "Ash".into(), 10, false, None, None, seconds(0)));
        let seal = Some(vec![0, 2, 255]);
        assert_eq!(rows[1], (id(2), None, "birch".into(), 20, true, seal, None, seconds(1)));
        assert_eq!(rows[4].6, Some(NOON));
    })
    .await;
}

#[tokio::test]
async fn reading_statements_mean_the_same() {
    TestDb::each(|db| async move {
        with_five_things(&db).await;
        let names = |rows: Vec<(String,)>| rows.into_iter().map(|row| row.0).collect::<Vec<_>>();

        let same = "select name from things where size = $1 or size = $1 + $2 order by size";
        assert_eq!(names(all(&db, same, args![10, 10]).await), ["Ash", "birch"]);

        let after = "select name from things where (made_at, id) > ($1, $2) order by made_at, id";
        let page = all(&db, after, args![Timestamp::from_seconds(1), id(2)]).await;
        assert_eq!(names(page), ["cedar_1", "Dogwood", "élan"]);

        let filter = "select count(*) from things where $1 is null or name = $1";
        let cast = "select count(*) from things where cast($1 as text) is null or name = $1";
        for sql in [filter, cast] {
            assert_eq!(all::<(i64,)>(&db, sql, args![None::<String>]).await, [(5,)]);
            assert_eq!(all::<(i64,)>(&db, sql, args!["birch"]).await, [(1,)]);
        }

        let cte = "with big as (select name, size from things where size > $1)
                   select name from big order by size desc";
        assert_eq!(names(all(&db, cte, args![30]).await), ["élan", "Dogwood"]);

        let window = "select name, row_number() over (order by size desc) from things
                      order by size desc limit 1";
        assert_eq!(all::<(String, i64)>(&db, window, args![]).await, [("élan".into(), 1)]);

        let first = "select coalesce($1, name) from things where size = 10";
        assert_eq!(names(all(&db, first, args![None::<&str>]).await), ["Ash"]);

        let like = "select name from things where lower(name) like $1 escape '!' order by name";
        assert_eq!(names(all(&db, like, args!["cedar!_%"]).await), ["cedar_1"]);
        assert_eq!(names(all(&db, like, args!["a%"]).await), ["Ash"]);

        let ordered = "select name from things order by name";
        let by_octets = ["Ash", "Dogwood", "birch", "cedar_1", "élan"];
        assert_eq!(names(all(&db, ordered, args![]).await), by_octets);
    })
    .await;
}

#[tokio::test]
async fn expressions_mean_the_same() {
    TestDb::each(|db| async move {
        with_five_things(&db).await;
        let nulls = "select name from things order by used_at nulls last, name limit 1";
        assert_eq!(all::<(String,)>(&db, nulls, args![]).await, [("élan".into(),)]);

        let joined = "select name || '-' || $1 from things where ok = $2";
        assert_eq!(all::<(String,)>(&db, joined, args!["x", true]).await, [("birch-x".into(),)]);
        let literal = "select count(*) from things where ok = false";
        assert_eq!(all::<(i64,)>(&db, literal, args![]).await, [(4,)]);

        let sealed = "select id from things where seal = $1";
        assert_eq!(all::<(Uuid,)>(&db, sealed, args![vec![0_u8, 2, 255]]).await, [(id(2),)]);

        let divided = "select size / 3, 7 from things where size = 20";
        assert_eq!(all::<(i64, i64)>(&db, divided, args![]).await, [(6, 7)]);

        let values = "with v(k) as (values ($1), ($2))
                      select t.name from things t join v on v.k = t.name order by t.name";
        let found = all::<(String,)>(&db, values, args!["birch", "Ash"]).await;
        assert_eq!(found, [("Ash".into(),), ("birch".into(),)]);

        let sum = "select cast(sum(size) as bigint) from things";
        assert_eq!(all::<(i64,)>(&db, sum, args![]).await, [(150,)]);
        let case = "select cast(case when ok then 1 else 0 end as bigint) from things order by id";
        assert_eq!(all::<(i64,)>(&db, case, args![]).await, [(0,), (1,), (0,), (0,), (0,)]);
        let exists = "select exists (select 1 from things where id = $1), size > 5 from things";
        assert!(all::<(bool, bool)>(&db, exists, args![id(9)]).await.contains(&(false, true)));
    })
    .await;
}

#[tokio::test]
async fn writing_statements_mean_the_same() {
    TestDb::each(|db| async move {
        with_five_things(&db).await;
        let mut tx = db.begin().await.unwrap();
        let upsert = "insert into owners (id, email) values ($1, $2)
                      on conflict (email) do update set id = excluded.id returning id, email";
        tx.one::<(Uuid, String)>(upsert, args![id(1), "a@b"]).await.unwrap();
        let kept: (Uuid, String) = tx.one(upsert, args![id(2), "a@b"]).await.unwrap();
        assert_eq!(kept, (id(2), "a@b".into()));

        let update = "update things set size = size + $1 where id = $2 returning size";
        assert_eq!(tx.one::<(i64,)>(update, args![5, id(1)]).await.unwrap(), (15,));

        let once = "update things set used_at = $1 where id = $2 and used_at is null returning id";
        assert!(tx.maybe::<(Uuid,)>(once, args![NOON, id(1)]).await.unwrap().is_some());
        assert!(tx.maybe::<(Uuid,)>(once, args![NOON, id(1)]).await.unwrap().is_none());

        let sweep = "delete from things where id in
                     (select id from things order by id limit 2) returning id";
        let swept = tx.all::<(Uuid,)>(sweep, args![]).await.unwrap();
        assert_eq!(swept.len(), 2);
        assert_eq!(tx.run("delete from things where size > $1", args![40]).await.unwrap(), 1);
        tx.commit().await.unwrap();
        assert_eq!(all::<(i64,)>(&db, "select count(*) from things", args![]).await, [(2,)]);
    })
    .await;
}

#[tokio::test]
async fn a_null_of_every_type_can_be_stored() {
    TestDb::each(|db| async move {
        db.migrate(TABLES, NOON).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        tx.run("create table nulls (a text, b bigint, c flag, d bytes, e id, f instant)", args![])
            .await
            .unwrap();
        let nulls = args![
            None::<String>,
            None::<i64>,
            None::<bool>,
            None::<Vec<u8>>,
            None::<Uuid>,
            None::<Timestamp>
        ];
        tx.run("insert into nulls values ($1, $2, $3, $4, $5, $6)", nulls).await.unwrap();
        type Nulls = (
            Option<String>,
            Option<i64>,
            Option<bool>,
            Option<Vec<u8>>,
            Option<Uuid>,
            Option<Timestamp>,
        );
        let row: Nulls = tx.one("select * from nulls", args![]).await.unwrap();
        assert_eq!(row, Nulls::default());
        tx.commit().await.unwrap();
        let wrong = db.one::<(String,)>("select a from nulls", args![]).await.unwrap_err();
        assert_eq!(wrong.kind(), DbErrorKind::Wrong);
    })
    .await;
}

#[tokio::test]
async fn an_id_in_another_spelling_is_refused() {
    let test = TestDb::sqlite().await;
    for spelled in [
        "select '018F3A52-7C11-7000-8000-00000000000A'",
        "select '018f3a527c117000800000000000000a'",
        "select '{018f3a52-7c11-7000-8000-00000000000a}'",
        "select 'urn:uuid:018f3a52-7c11-7000-8000-00000000000a'",
    ] {
        let refused = test.db().one::<(Uuid,)>(spelled, args![]).await.unwrap_err();
        assert_eq!(refused.kind(), DbErrorKind::Wrong, "{spelled}");
    }
    let plain = "select '018f3a52-7c11-7000-8000-00000000000a'";
    test.db().one::<(Uuid,)>(plain, args![]).await.unwrap();
}

#[tokio::test]
async fn a_forgotten_value_is_refused_before_the_database_sees_it() {
    TestDb::each(|db| async move {
        with_five_things(&db).await;
        let sql = "select id from things where $2 is null or name = $1";
        let refused = db.all::<(Uuid,)>(sql, args!["Ash"]).await.unwrap_err();
        assert_eq!(refused.kind(), DbErrorKind::Wrong);
        assert!(std::error::Error::source(&refused).is_none(), "the database was asked");
        let mut tx = db.begin().await.unwrap();
        assert!(tx.run("delete from things", args![1]).await.is_err());
        assert_eq!(tx.run("delete from things", args![]).await.unwrap(), 5);
    })
    .await;
}

#[tokio::test]
async fn text_that_looks_like_a_number_stays_text() {
    TestDb::each(|db| async move {
        with_five_things(&db).await;
        let mut tx = db.begin().await.unwrap();
        let sql = "insert into owners (id, email) values ($1, $2) returning id, email";
        for (number, text) in [(12, "0012"), (0x1e5 << 96, "1e5"), (u128::MAX, "9")] {
            let row: (Uuid, String) = tx.one(sql, args![id(number), text]).await.unwrap();
            assert_eq!(row, (id(number), text.to_owned()));
        }
    })
    .await;
}

#[tokio::test]
async fn what_only_reads_changes_nothing() {
    TestDb::each(|db| async move {
        with_five_things(&db).await;
        let reader = db.read_only();
        for sql in [
            "update things set size = 0 returning name",
            "with gone as (delete from things returning name) select name from gone",
        ] {
            let refused = reader.all::<(String,)>(sql, args![]).await.unwrap_err();
            assert_eq!(refused.kind(), DbErrorKind::Wrong, "{sql}");
        }
        let (left,): (i64,) =
            reader.one("select count(*) from things where size > 0", args![]).await.unwrap();
        assert_eq!(left, 5);
    })
    .await;
}

#[tokio::test]
async fn the_number_of_rows_and_columns_is_checked() {
    TestDb::each(|db| async move {
        with_five_things(&db).await;
        let several = "select name from things";
        assert!(db.one::<(String,)>(several, args![]).await.is_err());
        assert!(db.maybe::<(String,)>(several, args![]).await.is_err());
        let none = "select name from things where size < 0";
        assert!(db.one::<(String,)>(none, args![]).await.is_err());
        assert_eq!(db.maybe::<(String,)>(none, args![]).await.unwrap(), None);
        let two = "select name, size from things where size = 10";
        assert!(db.one::<(String,)>(two, args![]).await.is_err());
        assert!(db.one::<(String, i64, i64)>(two, args![]).await.is_err());
        assert!(db.one::<(i64, i64)>(two, args![]).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn constraints_say_what_they_refused() {
    TestDb::each(|db| async move {
        with_five_things(&db).await;
        let refused = |sql, args| {
            let db = db.clone();
            async move { db.begin().await.unwrap().run(sql, args).await.unwrap_err() }
        };
        let thing = "insert into things (id, owner_id, name, size, made_at)
                     values ($1, $2, $3, $4, $5)";
        let error = refused(thing, args![id(1), None::<Uuid>, "x", 1, NOON]).await;
        assert_eq!(error.kind(), DbErrorKind::Conflict);
        assert!(error.is_conflict_on("things", "id") && !error.is_conflict_on("owners", "id"));

        let error = refused(thing, args![id(9), None::<Uuid>, "ASH", 1, NOON]).await;
        assert_eq!(
            (error.kind(), error.constraint()),
            (DbErrorKind::Conflict, Some("things_name"))
        );

        let error = refused(thing, args![id(9), id(77), "x", 1, NOON]).await;
        assert_eq!(error.kind(), DbErrorKind::Foreign);
        let error = refused(thing, args![id(9), None::<Uuid>, "x", -1, NOON]).await;
        assert_eq!(error.kind(), DbErrorKind::Check);
        let error = refused(thing, args![id(9), None::<Uuid>, None::<&str>, 1, NOON]).await;
        assert_eq!(error.kind(), DbErrorKind::Check);

        let error = refused("selec 1", args![]).await;
        assert_eq!(error.kind(), DbErrorKind::Wrong);
        assert!(!error.to_string().contains("selec"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_default_constraint_name_is_the_same() {
    TestDb::each(|db| async move {
        with_five_things(&db).await;
        let mut tx = db.begin().await.unwrap();
        let sql = "insert into owners (id, email) values ($1, $2)";
        tx.run(sql, args![id(1), "a@b"]).await.unwrap();
        let error = tx.run(sql, args![id(2), "a@b"]).await.unwrap_err();
        assert_eq!(error.constraint(), Some("owners_email_key"));
        assert!(error.is_conflict_on("owners", "email"));
    })
    .await;
}

#[tokio::test]
async fn both_schemas_are_the_same() {
    let (sqlite, postgres) = (TestDb::sqlite().await, TestDb::postgres().await);
    let mut shapes = Vec::new();
    for db in [sqlite.db(), postgres.db()] {
        db.migrate(TABLES, NOON).await.unwrap();
        shapes.push(palisade_db::testing::schema(db).await.unwrap());
    }
    assert_eq!(shapes[0], shapes[1]);
    assert_eq!(shapes[0].len(), 2);
    assert_eq!(shapes[0][0].unique, [["email"], ["id"]]);
    assert_eq!(shapes[0][1].columns[4].type_word, "flag");
}

#[tokio::test]
async fn a_prepared_template_is_copied() {
    for _ in 0..2 {
        let copy = TestDb::postgres_from("things", |db| async move {
            db.migrate(TABLES, NOON).await.unwrap();
        })
        .await;
        let count = "select count(*) from things";
        assert_eq!(all::<(i64,)>(copy.db(), count, args![]).await, [(0,)]);
    }
}
