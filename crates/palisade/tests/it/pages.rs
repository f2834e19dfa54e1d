//! The pages: their one shell, and what the texts of their scripts alone show.

use std::path::{Path, PathBuf};

use palisade::testing::{On, Plan, TestApp};

/// The scripts below `src`, with their texts.
fn scripts() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "js") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// Members that are looked up by what a variable says: `object[name]`. A number or a text in place says itself.
fn looked_up(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices('[') {
        let (before, from) = line.split_at(at);
        let follows = |c: char| c.is_alphanumeric() || "_$)]}".contains(c);
        let before = before.trim_end_matches("?.");
        let word = before.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap();
        let keyword = ["return", "of", "in", "typeof", "case"].contains(&word);
        let key = from[1..].split(']').next().unwrap().trim();
        let literal = key.starts_with(['"', '\''])
            || !key.is_empty() && key.chars().all(|c| c.is_ascii_digit());
        if before.ends_with(follows) && !keyword && !literal && !key.is_empty() {
            found.push(
                &line[before.rfind(|c: char| !follows(c) && c != '.').map_or(0, |at| at + 1)..],
            );
        }
    }
    found
}

/// An object that is used as a map answers `constructor` and `__proto__` too, and a name out of an answer may be one of
/// them: a `Map` knows only what was put into it.
#[test]
fn no_script_looks_a_member_up_by_a_name_from_outside() {
    let scripts = scripts();
    assert!(scripts.len() >= 6);
    for (path, text) in scripts {
        for (number, line) in text.lines().enumerate() {
            let found = looked_up(line);
            let place = format!("{}:{}", path.display(), number + 1);
            assert!(found.is_empty(), "{place}: use a Map: {found:?}");
        }
        assert!(
            !text.contains("__proto__") && !text.contains("Object.assign({}"),
            "{}",
            path.display()
        );
    }
}

#[test]
fn the_lint_finds_what_it_is_for() {
    for bad in [
        "x = map[name];",
        "f()[key]",
        "{ a: 1 }[error.name]",
        "a?.[b]",
        "a[0][b]",
        "body[name] = value",
        "delete body[a.b]",
    ] {
        assert!(!looked_up(bad).is_empty(), "{bad}");
    }
    for good in [
        "const [a, b] = x;",
        "x[0]",
        "x[\"a\"]",
        "for (const [a] of [b])",
        "f([a])",
        "return [a];",
        "[...a].map(f)",
        "x = [];",
    ] {
        assert!(looked_up(good).is_empty(), "{good}");
    }
}

#[tokio::test]
async fn every_page_is_in_the_one_shell() {
    let app = TestApp::on(On::Sqlite).await;
    let paths = app.builder.routes().into_iter().map(|route| route.path);
    let pages = paths.filter(|path| path.starts_with("/account/") || path == "/setup");
    let mut titles = Vec::new();
    for path in pages.chain(["/docs".to_owned(), "/mailbox".to_owned()]) {
        let page = app.anyone().get(&path).await.raw;
        let rest = page.strip_prefix("<!doctype html>\n<html lang=\"en\">\n<head>\n").unwrap();
        assert!(
            rest.contains("<link rel=\"stylesheet\" href=\"/assets/palisade.css\">\n"),
            "{path}"
        );
        assert!(rest.ends_with("</main>\n</body>\n</html>\n") || path == "/docs", "{path}: {page}");
        assert!(!page.contains("{{"), "{path}: {page}");
        let title = rest.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
        assert!(page.contains("<h1") && !title.unwrap().is_empty(), "{path}");
        titles.push(title.unwrap().to_owned());
    }
    titles.sort();
    let count = titles.len();
    titles.dedup();
    assert!(count > 10 && titles.len() == count, "{titles:?}");
    app.stop().await;
}

#[tokio::test]
async fn the_name_of_the_site_is_text_on_every_page() {
    let name = "<b>A&B</b> \"{{body}}\" {{links}}";
    let plan = Plan { settings: vec![("site.name", name)], ..Plan::default() };
    let app = TestApp::with(On::Sqlite, plan).await;
    let paths = app.builder.routes().into_iter().map(|route| route.path);
    let pages = paths.filter(|path| path.starts_with("/account/") || path == "/setup");
    let html = "&#60;b&#62;A&#38;B&#60;/b&#62; &#34;&#123;&#123;body&#125;&#125;&#34; \
                &#123;&#123;links&#125;&#125;";
    for path in pages.chain(["/docs".to_owned(), "/mailbox".to_owned()]) {
        let page = app.anyone().get(&path).await.raw;
        assert!(page.contains(&format!(" – {html}</title>")), "{path}: {page}");
        assert!(page.contains(&format!("<header class=\"site\">{html}</header>")), "{path}");
        assert!(!page.contains("<b>") && page.matches("<main").count() == 1, "{path}");
    }
    app.stop().await;
    let app = TestApp::on(On::Sqlite).await;
    let page = app.anyone().get("/account/reset").await.raw;
    assert!(page.contains(" – localhost</title>"), "{page}");
    app.stop().await;
}
