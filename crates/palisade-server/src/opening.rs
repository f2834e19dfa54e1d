//! Opens Palisade for a command: settings, data directory, database, root key.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use palisade::clock::Clock;
use palisade::files;
use palisade::settings::{Migrate, RootKey as RootKeySetting, Settings};
use palisade::{App, Builder, audit_log, keys};
use palisade_crypto::random::OsRandom;
use palisade_crypto::root::RootKey;
use palisade_db::Db;
use rustix::fs::OFlags;
use tokio::time::timeout;

use crate::failure::Failure;
use crate::front;
use crate::log;
use crate::output::Output;
use crate::serve;
use crate::sources;

/// How long an exiting process waits for the database to close its connections.
const CLOSING: Duration = Duration::from_secs(3);

/// Creates the data directory, accessible only to its owner. One that exists must not be writable by others.
pub(crate) fn data_directory(path: &Path) -> Result<(), Failure> {
    let failed =
        |what: &str| Failure::failed(format!("the data directory {} {what}", path.display()));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| failed("can't be created").because(error))?;
    let private = sources::this_process()?.require_private_directory(path);
    private.map_err(|error| failed("can't be used").because(error))
}

/// An app with an open database and the root key, and its builder.
pub(crate) struct Open {
    pub(crate) app: App,
    pub(crate) builder: Builder,
}

/// Returns the builder for what this binary serves: the library's modules and a front page.
pub(crate) fn builder(settings: Settings) -> Builder {
    Builder::new(settings, Clock::system(), Arc::new(OsRandom))
        .module(front::MODULE)
        .module(log::MODULE)
        .module(serve::MODULE)
}

/// Opens the database, whose schema may be out of date, and returns it with the builder.
pub(crate) async fn database(settings: &Settings) -> Result<(Builder, Db), Failure> {
    data_directory(&settings.data.directory)?;
    let db = Db::open(settings.database_options()).await?;
    Ok((builder(settings.clone()), db))
}

/// Opens the database and the app. Creates the root key if necessary. Updates the schema with `database.migrate` set to
/// `auto`; otherwise, a schema that is out of date is an error.
pub(crate) async fn open(settings: &Settings) -> Result<Open, Failure> {
    let (builder, db) = database(settings).await?;
    schema(settings, &builder, &db).await?;
    let root = root_key(settings, &db).await?;
    let app = builder.app(db, root).await?;
    Ok(Open { app, builder })
}

/// Runs a command with an open app, and closes the app even if the command fails.
pub(crate) async fn with_app<T>(
    settings: &Settings,
    output: Output,
    command: impl AsyncFnOnce(&App) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let app = open(settings).await?.app;
    let done = command(&app).await;
    let closed = close(&app).await;
    match (done, closed) {
        (Ok(done), closed) => closed.map(|()| done),
        (Err(failure), Ok(())) => Err(failure),
        (Err(failure), Err(unchained)) => {
            output.failure(&unchained);
            Err(failure)
        }
    }
}

/// Chains the audit records that this process wrote, then closes the app.
///
/// SECURITY: a record that isn't chained can be deleted unnoticed once the process that wrote it is gone
/// (test: what_a_command_wrote_is_chained_when_it_ends).
pub(crate) async fn close(app: &App) -> Result<(), Failure> {
    let sealed = audit_log::seal_written(app).await;
    // A statement to which the database doesn't respond can last as long as the statement timeout.
    if timeout(CLOSING, app.db.close()).await.is_err() {
        tracing::warn!("the database did not close its connections in time; they are dropped");
    }
    sealed.map_err(|error| {
        let detail = "the newest records of the audit log are not chained yet; the changes \
                    that they record are stored";
        Failure { details: error.causes().into_iter().collect(), ..Failure::failed(detail) }
    })
}

async fn schema(settings: &Settings, builder: &Builder, db: &Db) -> Result<(), Failure> {
    let migrations = builder.migrations();
    if settings.database.migrate == Migrate::Auto {
        db.migrate(&migrations, Clock::system().now()).await?;
        return Ok(());
    }
    let missing = db.migrations(&migrations).await?.missing();
    if missing > 0 {
        return Err(Failure::failed(format!(
            "migrations missing in the database: {missing}; apply them with: palisade migrate up"
        )));
    }
    Ok(())
}

/// Reads the root key. Creates a new one only if no data depends on another key.
async fn root_key(settings: &Settings, db: &Db) -> Result<RootKey, Failure> {
    let path = match &settings.keys.root_key {
        RootKeySetting::Text(text) => return parse(text.expose(), "PALISADE_KEYS__ROOT_KEY"),
        RootKeySetting::File(path) => path,
    };
    let data = &settings.data.directory;
    if let Some(key) = read_root_key(path, data)? {
        return Ok(key);
    }
    // SECURITY: a new key with old data would lock everyone out permanently and look like a new installation
    // (test: test_a_lost_or_foreign_root_key_stops_the_start_and_makes_no_new_one).
    if keys::any(db).await? {
        return Err(Failure {
            code: "keys.root_missing".into(),
            ..Failure::failed(format!(
                "the root key {} is missing, and the database was created with it; restore the \
                 file, or set keys.root_key to its path. No new key was created.",
                path.display()
            ))
        });
    }
    create_root_key(path, data)
}

fn parse(text: &str, from: &str) -> Result<RootKey, Failure> {
    RootKey::parse(text).map_err(|error| {
        Failure::failed(format!("the root key in {from} can't be used")).because(error)
    })
}

/// Reads the root key file, if it exists. A file that is not private is an error. `data` is the data directory.
pub(crate) fn read_root_key(path: &Path, data: &Path) -> Result<Option<RootKey>, Failure> {
    let unreadable = |error: std::io::Error| {
        let detail = format!("the root key {} can't be read", path.display());
        Failure::failed(detail).because(error)
    };
    let file = match open_key(path, data) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    sources::this_process()?.require_private(path, &file).map_err(unreadable)?;
    let text =
        palisade_crypto::secret::SecretString::from(files::text_of(file).map_err(unreadable)?);
    parse(text.expose(), &path.display().to_string()).map(Some)
}

/// SECURITY: files in the data directory and below it are created by Palisade itself and are never symbolic links.
/// Neither are the directories between the data directory and the key in `path`. A link elsewhere is the operator's
/// choice: Kubernetes mounts secrets in this way. The rules for the file apply to the target of such a link
/// (tests: a_root_key_in_the_data_directory_is_never_a_link, a_root_key_below_the_data_directory_is_never_a_link).
fn open_key(path: &Path, data: &Path) -> std::io::Result<File> {
    let own = is_within(path, data)?;
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    if own {
        flags |= OFlags::NOFOLLOW;
    }
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let is_link = |error: &std::io::Error| {
        error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
    };
    match opened {
        Err(error) if own && is_link(&error) => Err(std::io::Error::other(
            "it is a symbolic link; put the key file itself there, or set keys.root_key to the \
             path of the file",
        )),
        Ok(file) if !file.metadata()?.is_file() => {
            Err(std::io::Error::other("it is not a regular file"))
        }
        opened => opened,
    }
}

/// Returns whether `path` is in the data directory, at any depth. It is an error if a directory between the two is a
/// symbolic link.
fn is_within(path: &Path, data: &Path) -> std::io::Result<bool> {
    let Ok(data) = std::fs::metadata(data) else { return Ok(false) };
    let is_data = |folder: &Path| {
        let folder = std::fs::metadata(folder);
        folder.is_ok_and(|folder| (folder.dev(), folder.ino()) == (data.dev(), data.ino()))
    };
    let mut below = Vec::new();
    for folder in parent(path).ancestors() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        if !is_data(folder) {
            below.push(folder);
            continue;
        }
        let is_link = |folder: &&Path| folder.symlink_metadata().is_ok_and(|it| it.is_symlink());
        return match below.into_iter().find(is_link) {
            Some(link) => Err(std::io::Error::other(format!(
                "{} in the data directory is a symbolic link; use a directory",
                link.display()
            ))),
            None => Ok(true),
        };
    }
    // The path may lead into the data directory in another way: relative to a directory inside it, or through a link.
    Ok(parent(path).canonicalize().is_ok_and(|real| real.ancestors().any(is_data)))
}

fn parent(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Creates a root key and syncs it to disk before anything depends on it. `data` is the data directory.
pub(crate) fn create_root_key(path: &Path, data: &Path) -> Result<RootKey, Failure> {
    let key = RootKey::generate(&OsRandom);
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        writeln!(file, "{}", key.to_text().expose())?;
        file.sync_all()?;
        File::open(parent(path))?.sync_all()
    };
    match write() {
        Ok(()) => Ok(key),
        // Another process created it at the same moment.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => read_root_key(path, data)?
            .ok_or_else(|| Failure::failed("the root key file was removed while being read")),
        Err(error) => {
            let detail = format!("the root key {} can't be written", path.display());
            Err(Failure::failed(detail).because(error))
        }
    }
}
