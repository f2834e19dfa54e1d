use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::catalogue::{CATALOGUE, Preset};
use super::source::variable;
use super::*;

const RULES: [LimitDefault; 2] = [
    LimitDefault { name: "login_ip", burst: 10, per: Duration::from_secs(60) },
    LimitDefault { name: "register", burst: 5, per: Duration::from_secs(3600) },
];

const ROOT_KEY: &str = "palisade-root-key-v1.AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// A production configuration with everything that it requires.
const PRODUCTION: &str = r#"
[server]
environment = "production"
public_url = "https://app.example.com"
trusted_proxies = ["127.0.0.1/32"]
"#;

fn no_file(_: &Path) -> io::Result<String> {
    Err(io::Error::from(io::ErrorKind::NotFound))
}

/// Sources with the file, the environment and the flags of a test.
fn sources(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Sources<'static> {
    let owned = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    Sources {
        flags: owned(flags),
        environment: owned(environment),
        environment_file: None,
        file: Some(("palisade.toml".into(), file.to_owned())),
        limit_rules: &RULES,
        read_file: &no_file,
    }
}

fn with_env_file<'a>(text: &str, environment: &[(&str, &str)]) -> Sources<'a> {
    let file = Some((PathBuf::from("/etc/palisade/.env"), text.to_owned()));
    let toml = "server.listen = \"127.0.0.1:1\"\ntokens.issuer = \"toml\"";
    Sources { environment_file: file, ..sources(toml, environment, &[]) }
}

fn loaded(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Loaded {
    Settings::load(sources(file, environment, flags)).unwrap()
}

fn settings(file: &str) -> Settings {
    loaded(file, &[], &[]).settings
}

fn problems(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Vec<Problem> {
    Settings::load(sources(file, environment, flags)).unwrap_err()
}

/// Asserts that `file` has exactly one problem, about `key`, whose text contains `what`.
fn refused(file: &str, key: &str, what: &str) {
    let problems = problems(file, &[], &[]);
    assert_eq!(problems.len(), 1, "{file}: {problems:#?}");
    assert_eq!(problems[0].key, key, "{file}: {problems:#?}");
    assert!(problems[0].to_string().contains(what), "{file}: {}", problems[0]);
}

/// Asserts that the variable `name` causes exactly one problem, about `key`, whose text contains `what`.
fn variable_refused(name: &str, value: &str, key: &str, what: &str) {
    let problems = problems("", &[(name, value)], &[]);
    assert_eq!(problems.len(), 1, "{name}: {problems:#?}");
    assert_eq!(problems[0].key, key, "{problems:#?}");
    assert_eq!(problems[0].origin, Origin::Environment(name.to_owned()));
    assert!(problems[0].to_string().contains(what), "{name}: {}", problems[0]);
}

fn effective<'a>(loaded: &'a Loaded, key: &str) -> &'a Effective {
    loaded.effective.iter().find(|effective| effective.key == key).unwrap()
}

/// Returns a template with every setting uncommented.
fn uncommented(template: &str) -> String {
    let names: BTreeSet<&str> =
        CATALOGUE.iter().filter_map(|entry| entry.key.rsplit('.').next()).collect();
    let line = |line: &str| {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let name = bare.split_once(" = ").and_then(|(key, _)| key.rsplit('.').next());
        if name.is_some_and(|name| names.contains(name)) || bare.starts_with('[') {
            format!("{}\n", bare.replace("NAME", "register"))
        } else {
            String::new()
        }
    };
    template.lines().map(line).collect()
}

mod defaults {
    use super::*;

    #[test]
    fn no_source_at_all_is_development_on_loopback() {
        let loaded = Settings::load(Sources::default()).unwrap();
        let settings = loaded.settings;
        assert!(!settings.is_production());
        assert_eq!(settings.server.listen, SocketAddr::from(([127, 0, 0, 1], 8000)));
        assert_eq!(settings.server.admin_listen, SocketAddr::from(([127, 0, 0, 1], 9000)));
        assert_eq!(settings.server.max_body, 1 << 20);
        assert_eq!(settings.server.request_timeout, Duration::from_secs(30));
        assert_eq!(settings.sessions.idle_timeout, Duration::from_secs(14 * 86_400));
        assert_eq!(settings.registration.mode, RegistrationMode::Open);
        assert_eq!(settings.database.migrate, Migrate::Auto);
        assert!(settings.limits.enabled);
        assert!(loaded.effective.iter().all(|effective| effective.origin == Origin::Default));
    }

    #[test]
    fn production_closes_registration_and_leaves_the_schema_alone() {
        let settings = settings(PRODUCTION);
        assert!(settings.is_production());
        assert_eq!(settings.registration.mode, RegistrationMode::Closed);
        assert_eq!(settings.database.migrate, Migrate::Manual);
    }

    #[test]
    fn database_and_root_key_lie_in_the_data_directory() {
        let settings = settings("data.directory = \"/srv/palisade\"");
        assert_eq!(settings.database_url().expose(), "sqlite:/srv/palisade/palisade.db");
        assert_eq!(settings.keys.root_key, RootKey::File("/srv/palisade/root.key".into()));
    }

    #[test]
    fn tokens_are_from_and_for_the_public_url() {
        let plain = settings(PRODUCTION);
        assert_eq!(plain.tokens.issuer, "https://app.example.com");
        assert_eq!(plain.tokens.audience, "https://app.example.com");
        let named = settings("tokens.issuer = \"https://issuer.example\"");
        assert_eq!(named.tokens.audience, "https://issuer.example");
    }

    #[test]
    fn every_default_of_both_environments_is_accepted_when_written_out() {
        for production in [false, true] {
            let written = uncommented(&template(production));
            let cost = "cost = \"standard\"";
            assert!(written.contains(cost));
            let written = written.replace(cost, "cost = \"custom\"");
            // The example of a domain goes with the example of a public URL, which development has not.
            let domain = "rp_id = \"example.com\"";
            assert!(written.contains(domain));
            // Plain HTTP is redirected to https, which that URL of development is not.
            let from = "redirect_from = \"0.0.0.0:80\"";
            assert!(written.contains(from));
            let written =
                if production { written } else { written.replace(domain, "").replace(from, "") };
            // Schemas and roles are of PostgreSQL.
            let file = "url = \"sqlite:./palisade-data/palisade.db\"";
            assert!(written.contains(file));
            let written = written.replace(file, "url = \"postgres://localhost/app\"");
            // The example of a secret is refused.
            let secret = "PASTE-THE-OUTPUT-OF-openssl-rand-hex-32";
            assert!(written.contains(secret));
            refused(&written, "telemetry.metrics_token", "well-known placeholder");
            let written = written.replace(secret, &"0f".repeat(32));
            loaded(&written, &[], &[]);
        }
    }

    #[test]
    fn a_secret_is_long_and_no_placeholder() {
        let token = |value: &str| format!("telemetry.metrics_token = \"{value}\"");
        let refusal =
            |value: &str, why: &str| refused(&token(value), "telemetry.metrics_token", why);
        refusal(&"a".repeat(31), "shorter than 32 characters");
        refusal("changeme", "well-known placeholder");
        refusal(&"a b ".repeat(16), "contains a space");
        refusal(&"ä".repeat(32), "not ASCII");
        let loaded = loaded(&token(&"0f".repeat(16)), &[], &[]);
        assert_eq!(effective(&loaded, "telemetry.metrics_token").value, "(hidden)");
        assert!(!format!("{:?}", loaded.settings).contains("0f0f"));
    }

    #[test]
    fn a_rule_keeps_what_is_not_set() {
        let loaded = loaded("[limits.rules.login_ip]\nburst = 3", &[], &[]);
        let rule = &loaded.settings.limits.rules["login_ip"];
        assert_eq!((rule.burst, rule.per, rule.enabled), (3, Duration::from_secs(60), true));
        let other = &loaded.settings.limits.rules["register"];
        assert_eq!((other.burst, other.per), (5, Duration::from_secs(3600)));
        assert_eq!(effective(&loaded, "limits.rules.register.per").value, "1h");
    }

    #[test]
    fn no_key_ends_like_the_suffix_for_files() {
        assert!(CATALOGUE.iter().all(|entry| !entry.key.ends_with("_file")));
    }
}

mod precedence {
    use super::*;

    #[test]
    fn a_flag_outranks_the_environment_which_outranks_the_file() {
        let file = "server.listen = \"127.0.0.1:1111\"";
        let environment = [("PALISADE_SERVER__LISTEN", "127.0.0.1:2222")];
        let flags = [("server.listen", "127.0.0.1:3333")];
        let found = |loaded: &Loaded| {
            let origin = effective(loaded, "server.listen").origin.clone();
            (loaded.settings.server.listen.port(), origin)
        };
        let in_file = Origin::File { path: "palisade.toml".into(), line: 1 };
        assert_eq!(found(&loaded(file, &[], &[])), (1111, in_file));
        let in_variable = Origin::Environment("PALISADE_SERVER__LISTEN".into());
        assert_eq!(found(&loaded(file, &environment, &[])), (2222, in_variable));
        assert_eq!(found(&loaded(file, &environment, &flags)), (3333, Origin::Flag));
    }

    #[test]
    fn database_url_ranks_between_our_own_variable_and_the_file() {
        let file = "database.url = \"sqlite:file.db\"";
        let theirs = ("DATABASE_URL", "sqlite:theirs.db");
        let ours = ("PALISADE_DATABASE__URL", "sqlite:ours.db");
        let url = |environment: &[(&str, &str)]| {
            loaded(file, environment, &[]).settings.database_url().expose().to_owned()
        };
        assert_eq!(url(&[]), "sqlite:file.db");
        assert_eq!(url(&[theirs]), "sqlite:theirs.db");
        assert_eq!(url(&[theirs, ours]), "sqlite:ours.db");
        assert_eq!(url(&[ours, theirs]), "sqlite:ours.db");
    }

    #[test]
    fn every_setting_is_reached_through_its_variable() {
        for entry in CATALOGUE {
            let key = entry.key.replace("NAME", "register");
            // A file that doesn't exist is no value for any of them.
            variable_refused(&format!("{}_FILE", variable(&key)), "/none", &key, "/none");
        }
        let nested = [
            ("PALISADE_LIMITS__RULES__LOGIN_IP__BURST", "77"),
            ("PALISADE_SERVER__TRUSTED_PROXIES", "10.0.0.0/8, 192.168.1.7/32"),
            ("PATH", "/usr/bin"),
        ];
        let settings = loaded("", &nested, &[]).settings;
        assert_eq!(settings.limits.rules["login_ip"].burst, 77);
        assert_eq!(settings.server.trusted_proxies.len(), 2);
    }

    #[test]
    fn a_variable_can_name_a_file_that_holds_the_value() {
        let asked = RefCell::new(Vec::new());
        let read_file = |path: &Path| {
            asked.borrow_mut().push(path.to_owned());
            Ok(format!("{ROOT_KEY}\r\n"))
        };
        let environment = [("PALISADE_KEYS__ROOT_KEY_FILE", "/run/key")];
        let sources = Sources { read_file: &read_file, ..sources("", &environment, &[]) };
        let settings = Settings::load(sources).unwrap().settings;
        assert_eq!(settings.keys.root_key, RootKey::Text(Secret::new(ROOT_KEY)));
        assert_eq!(asked.into_inner(), [Path::new("/run/key")]);
    }

    #[test]
    fn a_byte_order_mark_and_final_white_space_of_a_file_are_dropped() {
        for (text, expected) in [
            ("\u{feff}an issuer\r\n", "an issuer"),
            ("an issuer\n\n", "an issuer"),
            ("an issuer \t\n", "an issuer"),
            ("  an issuer", "  an issuer"),
        ] {
            let read_file = |_: &Path| Ok(text.to_owned());
            let environment = [("PALISADE_TOKENS__ISSUER_FILE", "f")];
            let sources = Sources { read_file: &read_file, ..sources("", &environment, &[]) };
            assert_eq!(Settings::load(sources).unwrap().settings.tokens.issuer, expected);
        }
    }

    #[test]
    fn the_common_variables_have_a_file_form_too() {
        let read_file = |path: &Path| {
            let smtp = path == Path::new("/run/smtp");
            Ok(if smtp { "smtps://mail.example.com\n" } else { "sqlite:from-file.db\n" }.to_owned())
        };
        let load = |environment: &[(&str, &str)]| {
            let from = "mail.from = \"a@example.com\"\n[database]\nurl = \"sqlite:x.db\"";
            Settings::load(Sources { read_file: &read_file, ..sources(from, environment, &[]) })
        };
        let both = [("DATABASE_URL_FILE", "/run/database"), ("SMTP_URL_FILE", "/run/smtp")];
        let found = load(&both).unwrap();
        assert_eq!(found.settings.database_url().expose(), "sqlite:from-file.db");
        assert_eq!(found.settings.mail.smtp_url.as_ref().unwrap().host(), "mail.example.com");
        let origin = Origin::Environment("DATABASE_URL_FILE".into());
        assert_eq!(effective(&found, "database.url").origin, origin);
        // Palisade's own variable ranks above it, and the plain one beside it is refused.
        let own = ("PALISADE_DATABASE__URL", "sqlite:own.db");
        let found = load(&[both[0], own]).unwrap();
        assert_eq!(found.settings.database_url().expose(), "sqlite:own.db");
        let refused = load(&[both[0], ("DATABASE_URL", "sqlite:plain.db")]).unwrap_err();
        assert!(refused[0].wrong.contains("_FILE form"), "{refused:?}");
        for name in ["DATABASE_URL", "SMTP_URL_FILE", "PALISADE_X"] {
            assert!(is_variable(name), "{name}");
        }
        for name in ["DATABASE_URLS", "DATABASE_URL_FILE_FILE", "URL_FILE", "palisade_x"] {
            assert!(!is_variable(name), "{name}");
        }
    }

    #[test]
    fn an_env_file_ranks_between_the_environment_and_the_configuration_file() {
        let text = "# comment\nexport PALISADE_SERVER__LISTEN='127.0.0.1:2'\nOTHER=\"x\ny\"\n\
                    DATABASE_URL=sqlite:env.db\nPALISADE_TOKENS__AUDIENCE=\n";
        let found = Settings::load(with_env_file(text, &[])).unwrap();
        assert_eq!(found.settings.server.listen.port(), 2);
        assert_eq!(found.settings.tokens.issuer, "toml");
        assert_eq!(found.settings.database_url().expose(), "sqlite:env.db");
        assert_eq!(
            effective(&found, "server.listen").origin.to_string(),
            "/etc/palisade/.env, line 2"
        );
        let above =
            [("PALISADE_SERVER__LISTEN", "127.0.0.1:3"), ("DATABASE_URL", "sqlite:above.db")];
        let text = format!("{text}PALISADE_DATABASE__URL=sqlite:below.db");
        let found = Settings::load(with_env_file(&text, &above)).unwrap();
        assert_eq!(found.settings.server.listen.port(), 3);
        assert_eq!(found.settings.database_url().expose(), "sqlite:above.db");
        // An empty variable counts as not set, there too.
        let found =
            Settings::load(with_env_file(&text, &[("PALISADE_SERVER__LISTEN", "")])).unwrap();
        assert_eq!(found.settings.server.listen.port(), 2);
        let key = format!("PALISADE_KEYS__ROOT_KEY={ROOT_KEY}");
        let found = Settings::load(with_env_file(&key, &[])).unwrap();
        assert_eq!(found.settings.keys.root_key, RootKey::Text(Secret::new(ROOT_KEY)));
    }

    #[test]
    fn a_mistake_in_an_env_file_is_refused_with_its_line() {
        for (text, line, what) in [
            ("A=1\nPALISADE_SERVER__LISTN=x", 2, "no such setting"),
            ("PALISADE_SERVER__LISTEN=x", 1, "not an IP address"),
            ("PALISADE_SERVER__LISTEN", 1, "has no value"),
            ("A=1\n\nPALISADE_SERVER__LISTEN='hunter2", 3, "not closed"),
            ("hunter2 :", 1, "not a variable"),
            ("SMTP_URL=smtp://a\nSMTP_URL=hunter2", 2, "already set in /etc/palisade/.env, line 1"),
            ("DATABASE_URL=sqlite:a\nDATABASE_URL_FILE=/none", 2, "/none"),
        ] {
            let problems = Settings::load(with_env_file(text, &[])).unwrap_err();
            let origin = Origin::EnvironmentFile { path: "/etc/palisade/.env".into(), line };
            let found = problems.iter().find(|problem| problem.origin == origin);
            let said = found.unwrap_or_else(|| panic!("{text}: {problems:?}")).to_string();
            assert!(said.contains(what) && !said.contains("hunter2"), "{text}: {said}");
        }
    }

    #[test]
    fn a_variable_and_its_file_form_together_are_refused() {
        let both =
            [("PALISADE_DATABASE__URL", "sqlite:a.db"), ("PALISADE_DATABASE__URL_FILE", "f")];
        let read_file = |_: &Path| Ok("sqlite:b.db".to_owned());
        for pair in [both, [both[1], both[0]]] {
            let sources = Sources { read_file: &read_file, ..sources("", &pair, &[]) };
            let problems = Settings::load(sources).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].to_string().contains("are set"));
        }
    }

    #[test]
    fn an_unreadable_or_empty_file_is_refused() {
        let name = "PALISADE_TOKENS__ISSUER_FILE";
        variable_refused(name, "/none", "tokens.issuer", "`/none`");
        let read_file = |_: &Path| Ok("\n".to_owned());
        let sources = Sources { read_file: &read_file, ..sources("", &[(name, "f")], &[]) };
        assert!(Settings::load(sources).unwrap_err()[0].wrong.contains("is empty"));
    }
}

mod refusals {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() {
        refused("\n[server]\nlistne = \"x\"", "server.listne", "line 3");
        refused("[server]\nlistne = \"x\"", "server.listne", "server.listen. Use");
        refused("[srever]\nlisten = \"x\"", "srever.listen", "server.listen. Use");
        let rule = "limits.rules.login_adress.burst";
        refused(&format!("{rule} = 1"), rule, "limits.rules.login_ip.burst. Use");
        let pattern = "limits.rules.NAME.burst";
        refused(&format!("{pattern} = 1"), pattern, "no such setting");
        refused("[unknown]", "unknown", "no such setting");
        refused("server = 3", "server", "Write [server]");
    }

    #[test]
    fn a_quoted_name_with_dots_is_not_a_path() {
        let problems = problems("\"server.listen\" = \"127.0.0.1:1\"", &[], &[]);
        assert!(problems[0].wrong.contains("no such setting"), "{problems:?}");
    }

    #[test]
    fn an_unknown_variable_or_flag_is_refused_with_the_nearest_known_one() {
        for name in ["PALISADE_SERVER__LISTNE", "PALISADE_SERVER_LISTEN"] {
            variable_refused(name, "x", name, "PALISADE_SERVER__LISTEN. Use");
        }
        variable_refused("PALISADE_", "x", "PALISADE_", "no such setting");
        let problems = problems("", &[], &[("server.lisen", "x")]);
        assert_eq!(problems[0].key, "server.lisen");
        assert!(problems[0].mend.contains("server.listen"));
    }

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        let empty = [
            ("PALISADE_SERVER__LISTEN", ""),
            ("PALISADE_TOKENS__ISSUER_FILE", ""),
            ("DATABASE_URL", ""),
            ("SMTP_URL_FILE", ""),
            ("PALISADE_SERVER__LISTNE", ""),
            ("PALISADE_DATABASE__URL_FILE", ""),
            ("PALISADE_DATABASE__URL", "sqlite:set.db"),
        ];
        let found = loaded("tokens.issuer = \"toml\"", &empty, &[]);
        assert_eq!(effective(&found, "server.listen").origin, Origin::Default);
        assert_eq!(found.settings.tokens.issuer, "toml");
        assert_eq!(found.settings.database_url().expose(), "sqlite:set.db");
    }

    #[test]
    fn what_kubernetes_writes_is_no_setting() {
        let link = [("PALISADE_PORT", "tcp://10.0.0.1:80"), ("PALISADE_VERSION", "1")];
        loaded("", &link, &[]);
        variable_refused("PALISADE_PORT", "80", "PALISADE_PORT", "no such setting");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused() {
        for (key, value, what) in [
            ("server.listen", "8000", "of type integer"),
            ("server.listen", "{ port = 1 }", "of type table"),
            ("limits.enabled", "\"true\"", "without quotes"),
            ("database.max_connections", "\"10\"", "without quotes"),
            ("database.max_connections", "-1", "negative"),
            ("database.max_connections", "1.5", "float"),
            ("cors.origins", "\"https://a.example\"", "in brackets"),
            ("cors.origins", "[1]", "item 1"),
            ("cors.origins", "[\"\"]", "item 1 is empty"),
            ("cors.origins", "[\"https://a.example,https://b.example\"]", "comma"),
        ] {
            refused(&format!("{key} = {value}"), key, what);
        }
    }

    #[test]
    fn numbers_in_other_bases_are_read() {
        assert_eq!(settings("database.max_connections = 0x1f").database.max_connections, 31);
    }

    #[test]
    fn a_wrong_unit_is_explained() {
        for (key, value, what) in [
            ("server.request_timeout", "30", "no unit"),
            ("server.request_timeout", "30 s", "without a space"),
            ("server.request_timeout", "1w", "ms, s, m, h and d"),
            ("server.request_timeout", "s", "whole number"),
            ("server.max_body", "1MB", "B, KiB, MiB and GiB"),
            ("server.max_body", "99999999999999999999KiB", "too large"),
            ("server.max_body", "18446744073709551615GiB", "too large"),
        ] {
            refused(&format!("{key} = \"{value}\""), key, what);
        }
    }

    #[test]
    fn a_value_outside_its_bounds_is_refused_and_one_on_them_accepted() {
        let bounded = CATALOGUE.iter().filter_map(|entry| Some((entry.key, entry.bounds?)));
        let mut tried = 0;
        for (key, (least, most)) in bounded {
            let key = key.replace("NAME", "register");
            let tell = |value: &str| {
                let found = Settings::load(sources("", &[(&variable(&key), value)], &[]));
                found.err().map_or_else(String::new, |problems| problems[0].wrong.clone())
            };
            for bound in [least, most] {
                let wrong = tell(bound);
                assert!(
                    !wrong.contains("is less than") && !wrong.contains("is more than"),
                    "{key}"
                );
            }
            let split = |text: &str| {
                let (number, unit): (String, String) = text.chars().partition(char::is_ascii_digit);
                (number.parse::<u64>().unwrap(), unit)
            };
            let (number, unit) = split(most);
            assert!(tell(&format!("{}{unit}", number + 1)).contains("is more than"), "{key}");
            let (number, unit) = split(least);
            if let Some(below) = number.checked_sub(1) {
                assert!(tell(&format!("{below}{unit}")).contains("is less than"), "{key}");
            }
            tried += 1;
        }
        assert!(tried > 15);
    }

    #[test]
    fn every_word_and_no_other_is_accepted() {
        for (key, words) in [
            ("server.environment", &["development"][..]),
            ("database.migrate", &["auto", "manual"]),
            ("tokens.format", &["jwt", "paseto"]),
            ("tokens.algorithm", &["EdDSA", "ES256"]),
            ("tokens.paseto", &["v4.public", "v4.local"]),
            ("passwords.algorithm", &["argon2id", "bcrypt"]),
            ("passwords.cost", &["standard", "light"]),
            ("registration.mode", &["open", "closed"]),
            ("registration.email_verification", &["required", "optional", "off"]),
            ("telemetry.log_format", &["auto", "pretty", "json"]),
            ("telemetry.log_level", &["error", "warn", "info", "debug", "trace"]),
        ] {
            for word in words {
                let loaded = loaded("", &[], &[(key, word)]);
                assert_eq!(effective(&loaded, key).value, *word);
            }
            refused(&format!("{key} = \"other\""), key, words[0]);
        }
        refused("tokens.algorithm = \"none\"", "tokens.algorithm", "EdDSA");
        refused("registration.mode = \"invite\"", "registration.mode", "closed");
    }

    #[test]
    fn a_file_that_is_not_toml_is_refused_with_the_line_and_without_its_text() {
        let problems = problems("[server]\n\nurl = postgres://u:hunter2@h/d\n", &[], &[]);
        assert_eq!(problems[0].origin, Origin::File { path: "palisade.toml".into(), line: 3 });
        assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        let problems = problems("data.directory = \"a\"\ndata.directory = \"b\"", &[], &[]);
        assert!(problems[0].to_string().contains("duplicate"), "{problems:?}");
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let file = r#"
            server.listen = "x"
            server.nope = 1
            tokens.access_ttl = "2h"
            sessions.idle_timeout = "31d"
        "#;
        let found = problems(file, &[("PALISADE_NOPE", "1")], &[("data.nope", "1")]);
        let keys: BTreeSet<&str> = found.iter().map(|problem| problem.key.as_str()).collect();
        let expected = [
            "server.nope",
            "PALISADE_NOPE",
            "data.nope",
            "server.listen",
            "tokens.access_ttl",
            "sessions.idle_timeout",
        ];
        assert_eq!(keys, BTreeSet::from(expected));
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().all(|problem| !problem.wrong.is_empty() && !problem.mend.is_empty()));
    }

    #[test]
    fn a_setting_that_can_not_be_read_is_not_judged_by_its_default() {
        let file = r#"
            server.environment = "production"
            server.public_url = "ftp://x"
            server.trusted_proxies = ["x"]
        "#;
        let found = problems(file, &[], &[]);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found.iter().all(|problem| problem.mend.starts_with("Expected")));
    }
}

mod origins {
    use super::*;

    #[test]
    fn an_origin_is_kept_as_browsers_send_it() {
        for (written, kept) in [
            ("https://App.Example.com", "https://app.example.com"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("https://app.example.com:8443", "https://app.example.com:8443"),
            ("http://localhost:80", "http://localhost"),
            ("http://localhost:443", "http://localhost:443"),
            ("https://app.example.com:80", "https://app.example.com:80"),
            ("http://[::1]:8000", "http://[::1]:8000"),
            ("http://[0:0::1]", "http://[::1]"),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("http://app.localhost", "http://app.localhost"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ] {
            let settings = settings(&format!("server.public_url = \"{written}\""));
            assert_eq!(settings.server.public_url.as_str(), kept);
        }
    }

    #[test]
    fn anything_but_an_origin_is_refused() {
        for (written, what) in [
            ("app.example.com", "does not begin"),
            ("ftp://app.example.com", "does not begin"),
            ("https://app.example.com/", "path"),
            ("https://app.example.com/app", "path"),
            ("https://app.example.com?x=1", "query"),
            ("https://app.example.com#x", "fragment"),
            ("https://ann:pw@app.example.com", "user name"),
            ("https://", "no host"),
            ("https://:443", "no host"),
            ("https://app.example.com:0", "port"),
            ("https://app.example.com:65536", "port"),
            ("https://app.example.com:", "port"),
            ("https://app.example.com:+80", "port"),
            ("https://[::g]", "IPv6"),
            ("https://::1", "neither a name nor"),
            ("https://bücher.example", "xn--"),
            ("https://a b", "neither a name nor"),
            ("https://*.example.com", "neither a name nor"),
            ("https://-a.example", "neither a name nor"),
            ("https://1.2.3.400", "neither a name nor"),
            ("null", "sandboxed"),
        ] {
            let file = format!("server.public_url = \"{written}\"");
            refused(&file, "server.public_url", what);
            refused(&format!("cors.origins = [\"{written}\"]"), "cors.origins", what);
        }
    }

    #[test]
    fn a_host_has_at_most_253_characters() {
        let label = "a".repeat(63);
        let longest = format!("https://{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(longest.len(), "https://".len() + 253);
        assert_eq!(
            settings(&format!("server.public_url = \"{longest}\"")).server.public_url.as_str(),
            longest
        );
        refused(&format!("server.public_url = \"{longest}a\""), "server.public_url", "neither");
        let longer = format!("https://{label}.{label}.{label}.a.{}", "a".repeat(61));
        refused(&format!("server.public_url = \"{longer}\""), "server.public_url", "neither");
    }

    #[test]
    fn an_android_app_is_an_origin_of_passkeys_only() {
        let hash = "A0JAQL4-2zuMwLcTvF7mWhAqMGbMRkRZw1dP6fHyCjI";
        let app = format!("android:apk-key-hash:{hash}");
        let file = format!("mfa.related_origins = [\"https://Example.org\", \"{app}\"]");
        let kept = settings(&file).mfa.related_origins;
        let kept: Vec<&str> = kept.iter().map(PasskeyOrigin::as_str).collect();
        assert_eq!(kept, ["https://example.org", &app]);
        refused(&format!("cors.origins = [\"{app}\"]"), "cors.origins", "does not begin");
        let hex = "AB:".repeat(31) + "AB";
        for (written, what) in [
            (format!("android:apk-key-hash:{hash}="), "without padding"),
            (format!("android:apk-key-hash:{hash}/"), "without padding"),
            (format!("android:apk-key-hash:{}", hash.replace('-', "+")), "without padding"),
            (
                "android:apk-key-hash:A0JAQL4-2zuMwLcTvF7mWhAqMGbMRkRZw1dP6fHyCjJ".to_owned(),
                "without padding",
            ),
            (format!("android:apk-key-hash:{hex}"), "not its hexadecimal form"),
            ("android:apk-key-hash:".to_owned(), "0 bytes"),
            ("android:apk-key-hash:A0JAQL4-2zuMwLcTvF7mWhAqMGb".to_owned(), "without padding"),
            ("android:apk-key-hash:AAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(), "20 bytes"),
            (format!("android:apk-key-hash:{hash}A"), "33 bytes"),
            (format!("android:apk-key-hash-sha256:{hash}"), "does not begin with"),
            (format!("ANDROID:apk-key-hash:{hash}"), "does not begin with"),
            ("android:com.example.app".to_owned(), "does not begin with"),
            ("ios:bundle-id:com.example.app".to_owned(), "does not begin"),
            ("https://example.org/".to_owned(), "path"),
        ] {
            let file = format!("mfa.related_origins = [\"{written}\"]");
            refused(&file, "mfa.related_origins", what);
        }
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for host in ["app.example.com", "192.168.1.5:8000", "localhost.example.com"] {
            let file = format!("server.public_url = \"http://{host}\"");
            refused(&file, "server.public_url", "unencrypted");
        }
    }

    #[test]
    fn a_wildcard_is_accepted_in_development_only() {
        let wildcard = "cors.origins = [\"*\"]";
        assert_eq!(settings(wildcard).cors.origins, [CorsOrigin::Any]);
        refused(&format!("{wildcard}\n{PRODUCTION}"), "cors.origins", "exact origins");
    }

    #[test]
    fn applications_have_origins_of_their_own() {
        for (written, read) in [
            ("capacitor://localhost", "capacitor://localhost"),
            ("TAURI://localhost", "tauri://localhost"),
            ("ionic://localhost:8080", "ionic://localhost:8080"),
            ("app://-", "app://-"),
            ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
            // Safari sends upper-case letters.
            ("safari-web-extension://9E2D-3F1B", "safari-web-extension://9E2D-3F1B"),
            ("HTTPS://App.example.com:443", "https://app.example.com"),
        ] {
            let read = CorsOrigin::Exact(read.to_owned());
            assert_eq!(settings(&format!("cors.origins = [\"{written}\"]")).cors.origins, [read]);
        }
        refused("server.public_url = \"capacitor://localhost\"", "server.public_url", "https://");
    }

    #[test]
    fn an_origin_that_many_pages_share_is_refused() {
        for (written, what) in [
            ("file://localhost", "no origin"),
            ("file://", "no origin"),
            ("FILE:///index.html", "no origin"),
            ("data://x", "no origin"),
            ("javascript://x", "no origin"),
            ("blob://x", "no origin"),
            ("null://x", "no origin"),
            ("data:text/html,x", "https://"),
            ("javascript:alert(1)", "https://"),
            ("capacitor://", "host"),
            ("capacitor://*", "host"),
            ("chrome-extension://*", "host"),
            ("*://localhost", "scheme"),
            ("1app://localhost", "scheme"),
            ("://localhost", "scheme"),
            ("capacitor://localhost/", "slash"),
            ("capacitor://a@localhost", "host and port"),
            ("capacitor://localhost:0", "port"),
            ("capacitor://localhost:", "port"),
            ("capacitor://local host", "host"),
            ("capacitor://é", "host"),
        ] {
            refused(&format!("cors.origins = [\"{written}\"]"), "cors.origins", what);
        }
    }

    #[test]
    fn a_header_that_is_not_for_scripts_is_refused() {
        let read = settings("cors.headers = [\"X-Client-Version\", \"x-request-id\"]").cors.headers;
        let names: Vec<&str> = read.iter().map(CorsHeader::as_str).collect();
        assert_eq!(names, ["x-client-version", "x-request-id"]);
        for (written, what) in [
            ("*", "every header"),
            ("Cookie", "not by scripts"),
            ("origin", "not by scripts"),
            ("host", "not by scripts"),
            ("Sec-Fetch-Site", "not by scripts"),
            ("proxy-authorization", "not by scripts"),
            ("access-control-request-method", "not by scripts"),
            ("X-Forwarded-For", "not by scripts"),
            ("forwarded", "not by scripts"),
            ("x y", "not the name"),
            ("x:y", "not the name"),
            ("é", "not the name"),
            ("", "empty"),
        ] {
            refused(&format!("cors.headers = [\"{written}\"]"), "cors.headers", what);
        }
    }

    #[test]
    fn the_name_of_the_site_is_one_visible_line() {
        assert_eq!(settings("").site.name.as_str(), "localhost");
        let long = format!("server.public_url = \"http://{}.localhost\"", "a".repeat(63));
        assert_eq!(settings(&long).site.name.as_str().len(), 64);
        assert_eq!(settings("site.name = \"Büro & <Co>\"").site.name.as_str(), "Büro & <Co>");
        for (written, what) in [
            ("", "is empty"),
            (" ", "is empty"),
            ("a\\r\\nBcc: eve@example.com", "control character"),
            ("a\\u0000", "control character"),
            ("a\\u202eb", "invisible"),
            ("a\\u200bb", "invisible"),
            (" a", "space"),
            ("a ", "space"),
            (&"a".repeat(65), "64 characters"),
        ] {
            refused(&format!("site.name = \"{written}\""), "site.name", what);
        }
    }
}

mod secrets {
    use super::*;

    #[test]
    fn a_root_key_comes_from_the_environment_or_a_file_of_its_own() {
        let by_environment = loaded("", &[("PALISADE_KEYS__ROOT_KEY", ROOT_KEY)], &[]);
        assert_eq!(by_environment.settings.keys.root_key, RootKey::Text(Secret::new(ROOT_KEY)));
        let by_path = settings("keys.root_key = \"/etc/palisade/root.key\"");
        assert_eq!(by_path.keys.root_key, RootKey::File("/etc/palisade/root.key".into()));
    }

    #[test]
    fn a_root_key_in_the_configuration_file_or_a_flag_is_refused() {
        let file = format!("keys.root_key = \"{ROOT_KEY}\"");
        refused(&file, "keys.root_key", "from the environment only");
        let by_flag = problems("", &[], &[("keys.root_key", ROOT_KEY)]);
        assert!(by_flag[0].wrong.contains("from the environment only"));
        assert!(!format!("{by_flag:?}").contains(ROOT_KEY));
    }

    #[test]
    fn a_placeholder_for_the_root_key_is_refused() {
        for placeholder in [
            "changeme",
            "CHANGE-ME",
            "change_this",
            "changethis",
            "secret",
            "super-secret",
            "password",
            "default",
            "example",
            "<your-secret-key>",
            "palisade-root-key-v1.changeme",
        ] {
            let name = "PALISADE_KEYS__ROOT_KEY";
            variable_refused(name, placeholder, "keys.root_key", "well-known placeholder");
        }
    }

    #[test]
    fn a_line_that_is_no_toml_is_refused_without_being_repeated() {
        for file in ["[keys]\nroot_key = hunter2\n", "[keys]\nroot_key = \"hunter2\n", "hunter2\n"]
        {
            let found = problems(file, &[], &[]);
            assert!(!found.is_empty() && !format!("{found:?}").contains("hunter2"), "{found:?}");
        }
    }

    #[test]
    fn a_short_or_broken_root_key_is_refused_without_being_repeated() {
        let name = "PALISADE_KEYS__ROOT_KEY";
        let long = format!("{ROOT_KEY}A");
        let odd = ROOT_KEY.replace("AAEC", "AA=C");
        for (key, what) in [
            ("hunter2", "neither a path nor a root key"),
            ("palisade-root-key-v1.", "fewer than 32 bytes"),
            ("palisade-root-key-v1.hunter2", "fewer than 32 bytes"),
            (&long, "text form"),
            (&odd, "text form"),
        ] {
            variable_refused(name, key, "keys.root_key", what);
            let problems = problems("", &[(name, key)], &[]);
            let said = format!("{problems:?}{}", problems[0]);
            assert!(!said.contains("hunter2") && !said.contains("CAwQFBgc"), "{said}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        // The driver takes what follows the first `?` for a parameter.
        let url = "postgres://ann:hunt@er/2?hunter2@db.example/app?sslmode=verify-full";
        let found = problems("", &[("DATABASE_URL", url)], &[]);
        assert!(!format!("{found:?}").contains("hunt"), "{found:?}");
        let found = problems("", &[("DATABASE_URL", "postgres://ann:hunt@er/2hunter2@h/app")], &[]);
        assert!(!format!("{found:?}").contains("hunt"), "{found:?}");
        assert!(found[0].wrong.contains("%40"), "{found:?}");
        let url = "postgres://ann:hunt%40er%2F2hunter2@db.example/app?sslmode=verify-full";
        let environment = [("PALISADE_KEYS__ROOT_KEY", ROOT_KEY), ("DATABASE_URL", url)];
        let loaded = loaded("", &environment, &[]);
        let said = format!("{loaded:?}");
        assert!(!said.contains("hunt") && !said.contains("CAwQFBgc"), "{said}");
        let shown = effective(&loaded, "database.url");
        assert!(shown.secret);
        assert_eq!(shown.value, "postgres://ann:(hidden)@db.example/app?sslmode=verify-full");
        assert_eq!(effective(&loaded, "keys.root_key").value, "(hidden)");
        assert_eq!(format!("{:?}", loaded.settings.database.url), shown.value);
        assert_eq!(loaded.settings.database_url().expose(), url);
    }

    #[test]
    fn a_secret_is_exposed_only_on_request() {
        let secret = Secret::new("hunter2");
        assert_eq!(secret.expose(), "hunter2");
        assert_eq!(format!("{secret:?}"), "(hidden)");
    }

    #[test]
    fn a_password_among_the_parameters_is_hidden() {
        let urls = [
            "postgres://db.example/app?password=hunter2&user=ann",
            "postgres://db.example/app?p%61ssword=hunter2&user=ann",
            "postgres://db.example/app?user=ann&sslkey=-----BEGIN+PRIVATE%20KEY-----hunter2",
            "postgresql+psycopg://db.example/app?password=hunter2&user=ann",
        ];
        for url in urls {
            let loaded = loaded("", &[("DATABASE_URL", url)], &[]);
            let shown = &effective(&loaded, "database.url").value;
            assert!(!shown.contains("hunter2") && shown.contains("user=ann"), "{shown}");
            let found = problems("", &[], &[("database.url", url)]);
            assert!(found[0].wrong.contains("command line"), "{found:?}");
        }
    }

    #[test]
    fn a_password_with_an_at_sign_among_the_parameters_hides_the_rest() {
        for url in [
            "postgres://db.example/app?password=hun@ter2",
            "postgres://db.example:5432/app?password=hun@ter2&user=ann",
            "postgres://ann:hunter2@db.example/app?options=@ter2",
        ] {
            let loaded = loaded("", &[("DATABASE_URL", url)], &[]);
            assert_eq!(effective(&loaded, "database.url").value, "postgres://(hidden)");
        }
    }

    #[test]
    fn a_url_without_a_password_is_shown_whole() {
        for url in ["sqlite:/srv/p.db", "postgres://db.example/app", "postgresql://ann@h:5432/a"] {
            let loaded = loaded("", &[], &[("database.url", url)]);
            assert_eq!(effective(&loaded, "database.url").value, url);
        }
    }

    #[test]
    fn a_password_on_the_command_line_is_refused() {
        let found = problems("", &[], &[("database.url", "postgres://ann:hunter2@h/app")]);
        assert!(found[0].wrong.contains("command line"), "{found:?}");
        assert!(!format!("{found:?}").contains("hunter2"));
        let found = problems("", &[], &[("database.migrate_url", "postgres://ann:hunter2@h/app")]);
        assert!(found[0].wrong.contains("command line"), "{found:?}");
        let found = problems("", &[], &[("mail.smtp_url", "smtps://ann:hunter2@mail.example.com")]);
        assert!(found[0].wrong.contains("command line"), "{found:?}");
        assert!(found[0].mend.contains("PALISADE_MAIL__SMTP_URL_FILE"), "{found:?}");
        assert!(!format!("{found:?}").contains("hunter2"));
    }

    #[test]
    fn a_wrong_database_url_is_not_repeated() {
        for url in ["mysql://ann:hunter2@h/d", "postgres:hunter2", "sqlite:", "postgres://"] {
            let found = problems("", &[("DATABASE_URL", url)], &[]);
            assert_eq!(found[0].key, "database.url");
            assert!(!format!("{found:?}").contains("hunter2"));
        }
    }
}

mod shown {
    use super::*;

    #[test]
    fn a_value_is_shown_as_it_is_written() {
        for (key, written) in [
            ("server.listen", "127.0.0.1:8001"),
            ("server.admin_listen", "[::1]:9001"),
            ("server.public_url", "https://app.example.com"),
            ("server.max_body", "64KiB"),
            ("server.request_timeout", "1500ms"),
            ("server.csp_report_to", "https://reports.example.com/csp"),
            ("server.hsts.max_age", "0s"),
            ("data.directory", "/srv/palisade"),
            ("mail.from", "Ann <ann@example.com>"),
            ("tokens.audience", "https://api.example.com"),
        ] {
            let loaded = loaded(&format!("{key} = \"{written}\""), &[], &[]);
            assert_eq!(effective(&loaded, key).value, written, "{key}");
        }
        for (key, written) in [
            ("server.trusted_proxies", "[\"10.0.0.0/8\", \"fd00::/8\"]"),
            ("cors.origins", "[\"https://app.example.com\", \"https://other.example.com\"]"),
            ("cors.origins", "[\"*\"]"),
            ("lockout.threshold", "7"),
            ("limits.enabled", "false"),
            ("compat.login_form", "true"),
        ] {
            let loaded = loaded(&format!("{key} = {written}"), &[], &[]);
            assert_eq!(effective(&loaded, key).value, written, "{key}");
        }
        assert_eq!(effective(&loaded("", &[], &[]), "mail.from").value, "(not set)");
        assert_eq!(value::Value::show(&0_u64), "0B");
    }
}

mod between_settings {
    use super::*;

    #[test]
    fn a_database_elsewhere_needs_a_verified_connection() {
        for mode in ["disable", "prefer", "require", "verify-ca"] {
            let url = format!("postgres://ann:hunter2@db.example.com/app?sslmode={mode}");
            let found = problems("", &[("DATABASE_URL", &url)], &[]);
            assert_eq!(found[0].key, "database.url");
            assert!(found[0].wrong.contains("sslmode=verify-full"), "{found:?}");
            assert!(!format!("{found:?}").contains("hunter2"));
        }
        settings("database.url = \"postgres://db.example.com/app\"");
        settings("database.url = \"postgres://localhost/app?sslmode=disable\"");
    }

    const PLAIN: &str = "database.url = \"postgres://db.example.com/app?sslmode=disable\"\n";

    #[test]
    fn a_private_network_with_a_reason_needs_no_tls() {
        let networks =
            "database.plaintext_networks = [{ network = \"10.1.0.0/16\", reason = \"a, b\" }]";
        let text = format!("{PLAIN}{networks}");
        let from_file = loaded(&text, &[], &[]);
        let shown = effective(&from_file, "database.plaintext_networks").value.clone();
        assert_eq!(shown, "[{ network = \"10.1.0.0/16\", reason = \"a, b\" }]");
        assert_eq!(from_file.settings.database_options().plaintext_networks.len(), 1);
        let json = "[{\"network\": \"10.1.0.0/16\", \"reason\": \"a, b\"}]";
        let environment = [("PALISADE_DATABASE__PLAINTEXT_NETWORKS", json)];
        let by_variable = loaded(PLAIN, &environment, &[]);
        assert_eq!(effective(&by_variable, "database.plaintext_networks").value, shown);
        let tables = format!(
            "{PLAIN}[[database.plaintext_networks]]\nnetwork = \"fd00::/8\"\nreason = \"wired\""
        );
        assert_eq!(settings(&tables).database.plaintext_networks[0].reason, "wired");
        let elsewhere = text.replace("db.example.com", "192.0.2.1");
        assert!(problems(&elsewhere, &[], &[])[0].wrong.contains("plaintext_networks"));
    }

    #[test]
    fn a_plaintext_network_is_private_and_has_a_reason() {
        for (item, wrong) in [
            ("{ network = \"203.0.113.0/24\", reason = \"r\" }", "public"),
            ("{ network = \"0.0.0.0/0\", reason = \"r\" }", "public"),
            ("{ network = \"8.0.0.0/6\", reason = \"r\" }", "public"),
            ("{ network = \"::/0\", reason = \"r\" }", "public"),
            ("{ network = \"2001:db8::/32\", reason = \"r\" }", "public"),
            ("{ network = \"10.0.0.0/8\" }", "reason"),
            ("{ network = \"10.0.0.0/8\", reason = \" \" }", "reason"),
            ("{ reason = \"r\" }", "network"),
            ("{ network = \"10.0.0.1/8\", reason = \"r\" }", "inside a network"),
            ("{ network = \"10.0.0.0/8\", reason = \"r\", why = \"\" }", "why"),
            ("{ network = 10, reason = \"r\" }", "integer"),
            ("\"10.0.0.0/8\"", "string"),
        ] {
            let found = problems(&format!("database.plaintext_networks = [{item}]"), &[], &[]);
            assert_eq!(found[0].key, "database.plaintext_networks", "{item}");
            assert!(found[0].to_string().contains(wrong), "{found:?}");
        }
    }

    #[test]
    fn what_only_postgresql_has_is_refused_with_sqlite() {
        for line in ["schema = \"app\"", "migrate_url = \"postgres://localhost/app\""] {
            let found = problems(&format!("database.{line}"), &[], &[]);
            assert!(found[0].wrong.contains("SQLite"), "{found:?}");
            settings(&format!("database.url = \"postgres://localhost/app\"\ndatabase.{line}"));
        }
        let postgres = "database.url = \"postgres://localhost/app\"\n";
        for (line, key) in [
            ("migrate_url = \"sqlite:a.db\"", "database.migrate_url"),
            ("migrate_url = \"postgres://db.example/app?sslmode=require\"", "database.migrate_url"),
            ("schema = \"$user\"", "database.schema"),
            ("schema = \"pg_app\"", "database.schema"),
            ("schema = \"a, b\"", "database.schema"),
        ] {
            let found = problems(&format!("{postgres}database.{line}"), &[], &[]);
            assert_eq!(found[0].key, key, "{line}");
        }
    }

    /// Returns a production configuration with one more line about the server.
    fn production_with(line: &str) -> String {
        PRODUCTION.replace("[server]", &format!("[server]\n{line}"))
    }

    #[test]
    fn development_refuses_to_listen_off_loopback() {
        for key in ["server.listen", "server.admin_listen"] {
            for address in ["0.0.0.0:80", "[::]:80", "192.168.1.5:80", "203.0.113.1:80"] {
                refused(&format!("{key} = \"{address}\""), key, "other machines");
            }
        }
        settings("server.listen = \"[::1]:8000\"");
        settings(&production_with("listen = \"0.0.0.0:8000\""));
    }

    #[test]
    fn development_may_be_exposed_on_request() {
        let exposed = "server.expose_development = true\nserver.listen = \"0.0.0.0:8000\"\n\
                       server.admin_listen = \"10.0.0.1:9000\"";
        assert!(settings(exposed).server.expose_development);
        refused("server.listen = \"0.0.0.0:8000\"", "server.listen", "expose_development to true");
    }

    #[test]
    fn production_refuses_to_expose_development() {
        let exposed = production_with("expose_development = true");
        refused(&exposed, "server.expose_development", "development only");
    }

    #[test]
    fn an_example_and_missing_mail_are_concerns_in_production() {
        let said = |file: &str| -> Vec<(Severity, String)> {
            let concerns = loaded(file, &[], &[]).concerns;
            concerns.into_iter().map(|found| (found.severity, found.problem.to_string())).collect()
        };
        let found = said(PRODUCTION);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].0 == Severity::Error && found[0].1.contains("server.public_url"));
        assert!(found[1].0 == Severity::Warning && found[1].1.contains("no mail server"));
        let edited = PRODUCTION.replace("app.example.com", "app.my-example.com");
        let more = "[mail]\nsmtp_url = \"smtps://u:p@mail.example.com\"\n\
                    from = \"a@example.org\"\n[cors]\norigins = [\"https://www.example.net\"]";
        let found = said(&format!("{edited}{more}"));
        let keys = ["mail.smtp_url", "mail.from", "cors.origins"];
        assert_eq!(found.len(), keys.len(), "{found:?}");
        for ((severity, said), key) in found.iter().zip(keys) {
            assert!(*severity == Severity::Warning && said.contains(key), "{said}");
            assert!(!said.contains("u:p"), "{said}");
        }
        let mine = more.replace("example", "mine");
        assert_eq!(said(&format!("{edited}{mine}")), []);
        assert_eq!(said("server.public_url = \"https://example.com\""), []);
    }

    #[test]
    fn production_needs_tls_or_a_trusted_proxy() {
        let bare = PRODUCTION.replace("trusted_proxies = [\"127.0.0.1/32\"]", "");
        refused(&bare, "server.trusted_proxies", "neither a certificate nor a trusted proxy");
        let tls = format!("{bare}\ntls.certificate = \"/c.pem\"\ntls.key = \"/k.pem\"");
        assert!(settings(&tls).server.tls.certificate.is_some());
    }

    #[test]
    fn certificate_and_key_come_together() {
        refused("server.tls.certificate = \"/c.pem\"", "server.tls.key", "both");
        refused("server.tls.key = \"/k.pem\"", "server.tls.certificate", "both");
    }

    #[test]
    fn plain_http_is_redirected_only_to_this_server_with_tls() {
        const FROM: &str = "server.tls.redirect_from";
        let from = format!("{FROM} = \"127.0.0.1:8080\"");
        let tls = "server.tls.certificate = \"/c.pem\"\nserver.tls.key = \"/k.pem\"";
        let https = "server.public_url = \"https://app.example.com\"";
        let whole = settings(&format!("{from}\n{tls}\n{https}"));
        assert_eq!(whole.server.tls.redirect_from, Some(SocketAddr::from(([127, 0, 0, 1], 8080))));
        refused(&format!("{from}\n{https}"), FROM, "no certificate is set");
        refused(&format!("{from}\n{tls}"), FROM, "would loop");
        let open = from.replace("127.0.0.1", "0.0.0.0");
        refused(&format!("{open}\n{tls}\n{https}"), FROM, "other machines");
        for other in ["server.listen", "server.admin_listen"] {
            let same = format!("{other} = \"127.0.0.1:8080\"\n{from}\n{tls}\n{https}");
            refused(&same, FROM, &format!("also the IP address and port of {other}"));
        }
    }

    #[test]
    fn production_needs_an_https_url() {
        let plain = PRODUCTION.replace("https://app.example.com", "http://localhost");
        refused(&plain, "server.public_url", "https");
        let plain = PRODUCTION.replace("https://", "http://");
        refused(&plain, "server.public_url", "https");
    }

    #[test]
    fn production_refuses_unencrypted_email() {
        let with = |file: &str, url: &str| {
            format!("{file}\n[mail]\nsmtp_url = \"{url}\"\nfrom = \"a@example.com\"")
        };
        for url in ["smtp://mailpit:1025?tls=never", "smtp://127.0.0.1:1025?tls=never"] {
            refused(&with(PRODUCTION, url), "mail.smtp_url", "unencrypted");
            settings(&with("", url));
        }
        settings(&with(PRODUCTION, "smtp://mailpit:1025"));
        refused("mail.helo_name = \"app.example.com\"", "mail.helo_name", "no effect");
        refused(&with("", "smtp://a.example?tls=x"), "mail.smtp_url", "other than tls=never");
    }

    #[test]
    fn trusting_everybody_is_always_refused() {
        let key = "server.trusted_proxies";
        for everybody in ["0.0.0.0/0", "::/0"] {
            let file = format!("{key} = [\"10.0.0.0/8\", \"{everybody}\"]");
            refused(&file, key, "almost anyone");
            refused(&PRODUCTION.replace("127.0.0.1/32", everybody), key, "almost anyone");
        }
        refused(&format!("{key} = [\"10.0.0.1\"]"), key, "/32");
        refused(&format!("{key} = [\"10.0.0.1/8\"]"), key, "inside a network");
    }

    #[test]
    fn the_proxy_protocol_needs_a_trusted_proxy() {
        let on = "server.proxy_protocol = true";
        refused(on, "server.proxy_protocol", "only from trusted proxies");
        let behind = settings(&format!("{on}\nserver.trusted_proxies = [\"10.0.0.0/8\"]"));
        assert!(behind.server.proxy_protocol && !settings("").server.proxy_protocol);
    }

    #[test]
    fn networks_that_cover_everybody_in_pieces_are_refused() {
        let key = "server.trusted_proxies";
        let list = |networks: &[String]| format!("{key} = [\"{}\"]", networks.join("\", \""));
        let texts = |networks: &[&str]| networks.iter().map(|text| (*text).to_owned()).collect();
        let eighths = |step| (1..224).step_by(step).map(|first| format!("{first}.0.0.0/8"));
        let everybody: [Vec<String>; 9] = [
            texts(&["0.0.0.0/1", "128.0.0.0/1"]),
            texts(&["0.0.0.0/1"]),
            texts(&["::/1", "8000::/1"]),
            texts(&["2000::/3"]),
            texts(&["2000::/4", "3000::/4"]),
            texts(&["8.0.0.0/7"]),
            texts(&["8.0.0.0/9", "8.128.0.0/9", "9.0.0.0/30"]),
            eighths(1).collect(),
            eighths(2).collect(),
        ];
        for networks in everybody {
            refused(&list(&networks), key, "almost anyone");
        }
        let proxies: [Vec<String>; 4] = [
            texts(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "fc00::/7"]),
            texts(&["104.16.0.0/13", "172.64.0.0/13", "162.158.0.0/15", "2a06:98c0::/29"]),
            texts(&["2600:9000::/28", "13.32.0.0/15", "52.84.0.0/15", "::1/128"]),
            texts(&["8.0.0.0/8", "8.8.0.0/16", "8.0.0.0/8"]),
        ];
        for networks in proxies {
            assert_eq!(settings(&list(&networks)).server.trusted_proxies.len(), networks.len());
        }
    }

    #[test]
    fn networks_that_hold_ipv4_in_ipv6_count_as_ipv4() {
        let key = "server.trusted_proxies";
        for everybody in [
            // mapped
            "::ffff:0:0/96\", \"10.0.0.0/8",
            "::ffff:0:0/97\", \"::ffff:128.0.0.0/97",
            "::ffff:8.0.0.0/103",
            "::/64",
            // NAT64
            "64:ff9b::/96",
            "64:ff9b::/64",
            "64:ff9b::/32",
            "64:ff9b::8.0.0.0/103",
            "64:ff9b:1::/48",
            "64:ff9b:1:2::/96",
            // 6to4 and Teredo
            "2002:800::/23",
            "2001::/32",
            "2001::/33",
            // together with IPv4
            "64:ff9b::8.0.0.0/104\", \"9.0.0.0/8",
        ] {
            refused(&format!("{key} = [\"{everybody}\"]"), key, "almost anyone");
        }
        for proxies in [
            "::ffff:10.0.0.0/104",
            "::ffff:192.0.2.0/120",
            "64:ff9b::192.0.2.0/120",
            "64:ff9b::8.0.0.0/104\", \"8.0.0.0/8",
            "2002:808:808::/48",
            "2001:db8::/32\", \"2001:4860::/32",
        ] {
            settings(&format!("{key} = [\"{proxies}\"]"));
        }
    }

    #[test]
    fn preloading_needs_a_year_and_all_subdomains() {
        let hsts = |more: &str| format!("[server.hsts]\npreload = true\n{more}");
        assert!(settings(&hsts("")).server.hsts.preload);
        assert!(settings(&hsts("max_age = \"365d\"")).server.hsts.preload);
        for short in ["max_age = \"364d\"", "max_age = \"0s\"", "include_subdomains = false"] {
            refused(&hsts(short), "server.hsts.preload", "year");
        }
        assert!(settings("server.hsts.max_age = \"0s\"").server.hsts.max_age.is_zero());
    }

    #[test]
    fn reports_go_to_https_or_home() {
        let to = |url: &str| format!("server.csp_report_to = \"{url}\"");
        for (url, kept) in [
            ("https://reports.example.com/csp?a=b", "https://reports.example.com/csp?a=b"),
            ("https://Reports.example.com:443", "https://reports.example.com/"),
            ("https://reports.example.com?a", "https://reports.example.com/?a"),
            ("http://localhost:8000/csp", "http://localhost:8000/csp"),
            ("https://a.b/csp", "https://a.b/csp"),
        ] {
            assert_eq!(settings(&to(url)).server.csp_report_to.unwrap().as_str(), kept);
        }
        for (url, what) in [
            ("http://reports.example.com/csp", "unencrypted"),
            ("http://localhost:8001/csp", "unencrypted"),
            ("/csp", "https://"),
            ("https://ann@reports.example.com/", "user name"),
            ("https://reports.example.com/#a", "fragment"),
            ("https://reports.example.com/;script-src", "%XX"),
            ("https://reports.example.com/a b", "%XX"),
            ("https://reports.example.com/,https://b.example", "%XX"),
            ("javascript:alert(1)", "https://"),
        ] {
            refused(&to(url), "server.csp_report_to", what);
        }
    }

    #[test]
    fn the_reference_is_off_in_production_unless_it_is_set() {
        assert!(settings("").reference.enabled);
        assert!(!settings(PRODUCTION).reference.enabled);
        assert!(
            settings(&format!(
                "{PRODUCTION}
[reference]
enabled = true"
            ))
            .reference
            .enabled
        );
    }

    #[test]
    fn production_keeps_the_admin_listener_inside() {
        let at = |address: &str| production_with(&format!("admin_listen = \"{address}\""));
        for address in ["0.0.0.0:9000", "[::]:9000", "203.0.113.1:9000", "[2001:db8::1]:9000"] {
            refused(&at(address), "server.admin_listen", "expose the health endpoints");
        }
        for address in ["127.0.0.1:9001", "10.1.2.3:9000", "[::1]:9000", "[fd00::1]:9000"] {
            settings(&at(address));
        }
    }

    #[test]
    fn both_listeners_need_their_own_address() {
        refused("server.listen = \"127.0.0.1:9000\"", "server.admin_listen", "another port");
        settings("server.listen = \"127.0.0.1:0\"\nserver.admin_listen = \"127.0.0.1:0\"");
    }

    #[test]
    fn production_refuses_open_registration_without_verification() {
        let open = format!("registration.mode = \"open\"\n{PRODUCTION}");
        refused(&open, "registration.mode", "closed");
    }

    #[test]
    fn protections_can_be_switched_off_in_development_only() {
        for key in ["limits.enabled", "lockout.enabled", "limits.rules.register.enabled"] {
            let off = format!("{key} = false");
            settings(&off);
            refused(&format!("{off}\n{PRODUCTION}"), key, "switched off in production");
        }
        assert!(!settings("limits.enabled = false").limits.enabled);
    }

    #[test]
    fn an_idle_timeout_beyond_the_absolute_one_is_refused() {
        for key in ["idle_timeout", "cookie_idle_timeout"] {
            let file = format!("sessions.{key} = \"31d\"");
            refused(&file, &format!("sessions.{key}"), "absolute_timeout");
        }
        settings("sessions.idle_timeout = \"30d\"");
    }

    #[test]
    fn a_custom_cost_needs_its_three_numbers() {
        let found = problems("passwords.cost = \"custom\"", &[], &[]);
        assert_eq!(found.len(), 3);
        refused("passwords.argon2_passes = 3", "passwords.argon2_passes", "no effect");
    }

    #[test]
    fn production_refuses_a_custom_cost_below_the_recommended_minimum() {
        let custom = |mebibytes: u32, passes: u32| {
            format!(
                "[passwords]\ncost = \"custom\"\nargon2_memory = \"{mebibytes}MiB\"\n\
                 argon2_passes = {passes}\nargon2_lanes = 1\n"
            )
        };
        for (mebibytes, passes) in [(46, 1), (19, 2), (12, 3), (9, 4), (7, 5)] {
            settings(&format!("{}{PRODUCTION}", custom(mebibytes, passes)));
        }
        for (mebibytes, passes) in [(45, 1), (18, 2), (11, 3), (8, 4), (7, 4)] {
            let weak = custom(mebibytes, passes);
            settings(&weak);
            refused(&format!("{weak}{PRODUCTION}"), "passwords.argon2_memory", "OWASP");
        }
    }
}

mod texts {
    use super::*;

    #[test]
    fn both_templates_load_as_they_stand() {
        assert!(!settings(&template(false)).is_production());
        let production = settings(&template(true));
        assert!(production.is_production());
        assert_eq!(production.server.public_url.as_str(), "https://app.example.com");
    }

    #[test]
    fn the_template_for_development_sets_nothing() {
        let loaded = loaded(&template(false), &[], &[]);
        assert!(loaded.effective.iter().all(|effective| effective.origin == Origin::Default));
    }

    #[test]
    fn every_setting_stands_in_both_templates() {
        for production in [false, true] {
            let broken = uncommented(&template(production)).replace(" = ", " = 1.5 #");
            let problems = problems(&broken, &[], &[]);
            let named: BTreeSet<&str> =
                problems.iter().map(|problem| problem.key.as_str()).collect();
            for entry in CATALOGUE {
                assert!(named.contains(entry.key.replace("NAME", "register").as_str()));
            }
        }
    }

    #[test]
    fn the_environment_of_production_has_its_values() {
        let text = environment_example(true);
        for line in [
            "PALISADE_SERVER__ENVIRONMENT=production",
            "PALISADE_SERVER__PUBLIC_URL=https://app.example.com",
            "PALISADE_TOKENS__ISSUER=https://app.example.com",
            "PALISADE_DATABASE__MIGRATE=manual",
        ] {
            assert!(text.contains(&format!("\n# {line}\n")), "{line}");
        }
        // With every line set, it loads except for the examples that contradict each other.
        let set: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# PALISADE_SERVER__"))
            .filter(|line| !line.starts_with("TLS") && !line.starts_with("CSP"))
            .collect();
        let text = set.join("\nPALISADE_SERVER__");
        let sources = with_env_file(&format!("PALISADE_SERVER__{text}"), &[]);
        assert!(Settings::load(sources).unwrap().settings.is_production());
    }

    #[test]
    fn every_setting_stands_in_the_other_texts() {
        let environment = environment_example(false);
        let page = settings_markdown();
        for entry in CATALOGUE {
            assert!(environment.contains(&format!("# {}=", variable(entry.key))), "{}", entry.key);
            assert!(page.contains(&format!("| `{}` |", entry.key)), "{}", entry.key);
            assert!(entry.help.ends_with('.'), "{}", entry.key);
        }
    }

    #[test]
    fn every_setting_is_among_the_effective_ones() {
        let loaded = loaded("", &[], &[]);
        let shown: Vec<&str> = loaded.effective.iter().map(|one| one.key.as_str()).collect();
        let unique: BTreeSet<&str> = shown.iter().copied().collect();
        assert_eq!(shown.len(), unique.len());
        let of_rules = CATALOGUE.iter().filter(|entry| entry.key.contains("NAME")).count();
        assert_eq!(shown.len(), CATALOGUE.len() + of_rules * (RULES.len() - 1));
    }

    #[test]
    fn every_secret_is_marked_and_every_reference_leads_somewhere() {
        let secret: Vec<&str> =
            CATALOGUE.iter().filter(|entry| entry.secret).map(|entry| entry.key).collect();
        assert_eq!(
            secret,
            [
                "database.url",
                "database.migrate_url",
                "mail.smtp_url",
                "keys.root_key",
                "telemetry.metrics_token",
            ]
        );
        assert!(CATALOGUE.iter().all(|entry| match entry.preset {
            Preset::SameAs(other) | Preset::HostOf(other) =>
                CATALOGUE.iter().any(|entry| entry.key == other),
            _ => true,
        }));
    }

    /// The page is generated from the catalogue. If this fails, run the command that it prints.
    #[test]
    fn the_reference_page_is_up_to_date() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
        let made = settings_markdown();
        if std::fs::read_to_string(&page).unwrap_or_default() != made {
            let fresh = tempfile::Builder::new().suffix("-settings.md").tempfile().unwrap();
            std::fs::write(fresh.path(), made).unwrap();
            let fresh = fresh.into_temp_path().keep().unwrap();
            panic!("docs/settings.md is out of date: cp {} docs/settings.md", fresh.display());
        }
    }
}

mod any_input {
    use super::*;

    #[test]
    fn a_file_that_is_nested_deeply_is_refused() {
        let deep = vec!["a"; 20_000].join(".");
        for file in [
            format!("{deep} = 1"),
            format!("[{deep}]\nb = 1"),
            format!("a = {}", "[".repeat(20_000)),
            format!("a = {}1{}", "{a=".repeat(20_000), "}".repeat(20_000)),
        ] {
            assert!(!problems(&file, &[], &[]).is_empty());
        }
    }

    fn key() -> impl Strategy<Value = String> {
        let keys: Vec<String> =
            CATALOGUE.iter().map(|entry| entry.key.replace("NAME", "register")).collect();
        proptest::sample::select(keys)
    }

    /// Loads the settings and checks what must be true for every input.
    fn holds(sources: Sources<'_>) -> Result<(), TestCaseError> {
        match Settings::load(sources) {
            Ok(loaded) => prop_assert!(!loaded.effective.is_empty()),
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                for problem in problems {
                    prop_assert!(!problem.wrong.is_empty() && !problem.mend.is_empty());
                    prop_assert!(!problem.to_string().contains('\n'), "{problem:?}");
                }
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn no_text_of_a_file_panics(text in any::<String>()) {
            holds(sources(&text, &[], &[]))?;
        }

        #[test]
        fn no_text_like_a_file_panics(
            text in "([\\[\\]{}a-c.=\"' \n,#0-9_-]|server|limits|rules){0,60}"
        ) {
            holds(sources(&text, &[], &[]))?;
        }

        #[test]
        fn no_value_panics(key in key(), value in any::<String>()) {
            holds(sources("", &[(&variable(&key), &value)], &[]))?;
            holds(sources("", &[], &[(&key, &value)]))?;
        }

        #[test]
        fn no_number_with_a_unit_panics(
            key in key(),
            value in "[0-9]{0,22}(ms|s|m|h|d|B|KiB|MiB|GiB|)"
        ) {
            holds(sources("", &[], &[(&key, &value)]))?;
        }

        #[test]
        fn no_name_panics(name in any::<String>(), value in any::<String>()) {
            holds(sources("", &[(&format!("PALISADE_{name}"), &value)], &[]))?;
            holds(sources("", &[], &[(&name, &value)]))?;
        }

        #[test]
        fn what_is_kept_of_an_origin_is_read_as_the_same(host in "[a-z0-9.:\\[\\]-]{1,20}") {
            let url = format!("https://{host}");
            if let Ok(first) = Settings::load(sources("", &[], &[("server.public_url", &url)])) {
                let kept = first.settings.server.public_url;
                let again = loaded("", &[], &[("server.public_url", kept.as_str())]);
                prop_assert_eq!(again.settings.server.public_url, kept);
            }
        }

        #[test]
        fn a_shown_duration_or_size_is_read_as_the_same(
            millis in 1_000_u64..600_000,
            bytes in 1_024_u64..1 << 26
        ) {
            let (millis_text, bytes_text) = (format!("{millis}ms"), format!("{bytes}B"));
            let flags =
                [("server.request_timeout", &*millis_text), ("server.max_body", &*bytes_text)];
            let first = loaded("", &[], &flags);
            let shown = flags.map(|(key, _)| (key, effective(&first, key).value.as_str()));
            let again = loaded("", &[], &shown).settings.server;
            prop_assert_eq!(again.request_timeout, Duration::from_millis(millis));
            prop_assert_eq!(again.max_body, bytes);
        }
    }
}
