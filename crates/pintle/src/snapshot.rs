//! `pintle snapshot`: the cluster's objects into a file, and back.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use pintle_store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::up::api_flags::StoreFlags;
use crate::up::paths::{self, Paths};

/// Ends a snapshot that a running process sent whole.
const COMPLETE: &[u8] = b"\npintle: complete\n";

/// What to do with snapshots.
#[derive(Subcommand)]
pub enum Snapshot {
    /// Write the state of a cluster, running or stopped, to a file.
    Save {
        /// Where the state is.
        #[command(flatten)]
        place: Place,
        /// The file.
        file: PathBuf,
    },
    /// Fill a stopped cluster's store from a file.
    Restore {
        /// Where the state goes.
        #[command(flatten)]
        place: Place,
        /// The file.
        file: PathBuf,
        /// Put the store there is aside instead of refusing.
        #[arg(long)]
        replace: bool,
        /// Go on at a revision so much later than the snapshot's, so that no client sees revisions go backwards.
        #[arg(long, default_value_t = 1_000_000)]
        bump_revision: u64,
    },
}

/// Where a cluster's state is.
#[derive(Args, Clone)]
pub struct Place {
    /// The cluster's data directory.
    #[arg(long, default_value = "/var/lib/pintle", env = "PINTLE_DATA_DIR")]
    pub data_dir: PathBuf,
    /// An etcd instead.
    #[command(flatten)]
    pub store: StoreFlags,
}

/// Runs the command.
///
/// # Errors
/// What kept it from being done; nothing is left half done.
pub async fn run(what: Snapshot) -> anyhow::Result<()> {
    match what {
        Snapshot::Save { place, file } => save(&place, &file).await,
        Snapshot::Restore { place, file, replace, bump_revision } => {
            restore(&place, &file, replace, bump_revision).await
        }
    }
}

async fn save(place: &Place, file: &Path) -> anyhow::Result<()> {
    let paths = Paths::new(&place.data_dir);
    let mut bytes = Vec::new();
    if place.store.etcd_servers.is_empty()
        && let Ok(mut stream) = UnixStream::connect(paths.store_socket()).await
    {
        // The running process has the store to itself, so it writes the snapshot.
        stream.read_to_end(&mut bytes).await.context("reading the snapshot from the running cluster")?;
        if !bytes.ends_with(COMPLETE) {
            bail!("the running cluster did not send a whole snapshot; its log says why");
        }
        bytes.truncate(bytes.len() - COMPLETE.len());
    } else {
        let _lock = if place.store.etcd_servers.is_empty() {
            if !paths.store.exists() {
                bail!("there is no store below {}", place.data_dir.display());
            }
            Some(paths::lock(&paths.root)?)
        } else {
            None
        };
        let store = place.store.open(&paths.store, None).await?;
        store.snapshot(&mut bytes).await.context("reading the store")?;
        store.close().await?;
    }
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut out =
        tempfile::NamedTempFile::new_in(parent).with_context(|| format!("cannot write to {}", parent.display()))?;
    out.write_all(&bytes).and_then(|()| out.as_file().sync_all()).context("writing the snapshot")?;
    out.persist(file).with_context(|| format!("cannot write {}", file.display()))?;
    eprintln!("{} bytes written to {}", bytes.len(), file.display());
    Ok(())
}

async fn restore(place: &Place, file: &Path, replace: bool, bump: u64) -> anyhow::Result<()> {
    let mut input = tokio::fs::File::open(file).await.with_context(|| format!("cannot read {}", file.display()))?;
    let paths = Paths::new(&place.data_dir);
    let embedded = place.store.etcd_servers.is_empty();
    let mut lock = None;
    if embedded {
        std::fs::create_dir_all(&paths.root).with_context(|| format!("cannot make {}", paths.root.display()))?;
        lock = Some(paths::lock(&paths.root)?);
        if paths.store.exists() && !replace {
            bail!("{} is there: --replace puts it aside", paths.store.display());
        }
    }
    // Beside the present one, which goes only when the snapshot was found good.
    let fresh = paths.root.join("store.restoring");
    if embedded && fresh.exists() {
        std::fs::remove_dir_all(&fresh)?;
    }
    let store = place.store.open(&fresh, None).await?;
    let restored = store.restore(&mut input, bump).await;
    store.close().await?;
    drop(store);
    if embedded {
        if let Err(e) = restored {
            let _ = std::fs::remove_dir_all(&fresh);
            return Err(e).with_context(|| format!("{} cannot be restored", file.display()));
        }
        if paths.store.exists() {
            let aside = paths.root.join(format!("store.before-{}", jiff::Timestamp::now().as_second()));
            std::fs::rename(&paths.store, &aside)?;
            eprintln!("the store there was is now {}", aside.display());
        }
        std::fs::rename(&fresh, &paths.store)?;
        std::fs::File::open(&paths.root)?.sync_all()?;
    }
    let info = restored.with_context(|| format!("{} cannot be restored", file.display()))?;
    eprintln!("restored {} objects of revision {}", info.keys, info.revision);
    drop(lock);
    Ok(())
}

/// Gives snapshots of a running cluster's store to those who may connect.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(socket: &Path, store: std::sync::Arc<dyn Store>, shutdown: CancellationToken) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                a = listener.accept() => a,
                () = shutdown.cancelled() => return,
            };
            let Ok((mut stream, _)) = accepted else { continue };
            let store = store.clone();
            tokio::spawn(async move {
                match store.snapshot(&mut stream).await {
                    Ok(_) => drop(stream.write_all(COMPLETE).await),
                    Err(e) => tracing::error!("a snapshot failed: {e}"),
                }
            });
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_store::{ListRequest, Txn};

    fn place(data_dir: &Path) -> Place {
        Place { data_dir: data_dir.to_owned(), store: StoreFlags::default() }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn there_and_back() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = from.path().join("snapshot");
        assert!(save(&place(from.path()), &file).await.is_err());
        let open = async |dir: &Path| StoreFlags::default().open(&Paths::new(dir).store, None).await.unwrap();
        let store = open(from.path()).await;
        store.txn(Txn::default().put("/registry/a", "1")).await.unwrap();
        // While the store is in use, and when it is not.
        let stop = CancellationToken::new();
        let socket = Paths::new(from.path()).store_socket();
        serve(&socket, store.clone(), stop.clone()).unwrap();
        save(&place(from.path()), &file).await.unwrap();
        let running = std::fs::read(&file).unwrap();
        stop.cancel();
        std::fs::remove_file(&socket).unwrap();
        store.close().await.unwrap();
        drop(store);
        save(&place(from.path()), &file).await.unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), running);

        restore(&place(to.path()), &file, false, 100).await.unwrap();
        let store = open(to.path()).await;
        let listed = store.list(ListRequest::prefix("/")).await.unwrap();
        assert_eq!((listed.kvs.len(), &*listed.kvs[0].value), (1, &b"1"[..]));
        assert!(store.current_revision().await.unwrap() > 100);
        store.close().await.unwrap();
        drop(store);
        let refused = restore(&place(to.path()), &file, false, 0).await.unwrap_err().to_string();
        assert!(refused.contains("--replace"), "{refused}");
        // A damaged file changes nothing.
        std::fs::write(&file, &running[..running.len() / 2]).unwrap();
        assert!(restore(&place(to.path()), &file, true, 0).await.is_err());
        assert_eq!(open(to.path()).await.list(ListRequest::prefix("/")).await.unwrap().kvs.len(), 1);
    }
}
