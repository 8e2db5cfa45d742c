//! `pintle image`: the node's images. A running `pintle up` is asked by a socket in its data directory; when none runs,
//! the same service is called in this process, on the files.

pub(crate) mod service;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use futures::TryStreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use pintle_runtime::LoopbackOnly;
use pintle_runtime::embedded::{Embedded, Options};
use service::{Body, Listed};
use tokio::io::AsyncRead;
use tokio::net::UnixStream;
use tokio_util::io::ReaderStream;

use crate::up::paths::{self, Paths};

/// Where the images are.
#[derive(Args)]
pub struct At {
    /// The cluster's data directory.
    #[arg(long, default_value = "/var/lib/pintle", env = "PINTLE_DATA_DIR")]
    data_dir: PathBuf,
}

/// What `pintle image` can do.
#[derive(Subcommand)]
pub enum Image {
    /// Take in archives: OCI layouts or `docker save` archives, compressed or not. They are never garbage-collected.
    Import {
        #[command(flatten)]
        at: At,
        /// Files; `-` is standard input.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
        /// A name for an archive that names none.
        #[arg(long)]
        name: Option<String>,
    },
    /// Write images as an OCI layout archive.
    Export {
        #[command(flatten)]
        at: At,
        /// Names or ids.
        #[arg(required = true)]
        images: Vec<String>,
        /// The file; `-` is standard output.
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Pull images from their registries.
    Pull {
        #[command(flatten)]
        at: At,
        /// Names, as a Pod would have them.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// List the images.
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        at: At,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove images; containers that use them go on.
    #[command(visible_alias = "rm")]
    Remove {
        #[command(flatten)]
        at: At,
        /// Names or ids.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Remove every image that no container uses and that was not imported.
    Prune {
        #[command(flatten)]
        at: At,
    },
}

/// Runs it.
///
/// # Errors
/// What did not work, by image.
pub async fn run(what: Image) -> anyhow::Result<()> {
    match what {
        Image::Import { at, archives, name } => {
            let target = Target::open(&at.data_dir).await?;
            for archive in archives {
                let from: Box<dyn AsyncRead + Send + Unpin> = if archive.as_os_str() == "-" {
                    Box::new(tokio::io::stdin())
                } else {
                    Box::new(
                        tokio::fs::File::open(&archive)
                            .await
                            .with_context(|| format!("cannot read {}", archive.display()))?,
                    )
                };
                let frames = ReaderStream::new(from).map_ok(Frame::data).map_err(Into::into);
                let query = name.as_ref().map(|n| format!("?name={}", encode(n))).unwrap_or_default();
                let body = StreamBody::new(frames).boxed_unsync();
                for image in target.listed(Method::POST, &format!("/import{query}"), body).await? {
                    println!("{}", image.tags.first().unwrap_or(&image.id));
                }
            }
            Ok(())
        }
        Image::Export { at, images, output } => {
            let target = Target::open(&at.data_dir).await?;
            let names: Vec<String> = images.iter().map(|i| format!("image={}", encode(i))).collect();
            let mut answer = target.call(Method::GET, &format!("/export?{}", names.join("&")), empty()).await?;
            let mut to: Box<dyn Write> = if output.as_os_str() == "-" {
                if std::io::stdout().is_terminal() {
                    bail!("an archive is no text for a terminal: name a file by --output");
                }
                Box::new(std::io::stdout())
            } else {
                Box::new(std::fs::File::create(&output).with_context(|| format!("cannot write {}", output.display()))?)
            };
            while let Some(frame) = answer.body_mut().frame().await {
                let frame = frame.map_err(|e| anyhow::anyhow!("the export broke off: {e}"))?;
                if let Ok(data) = frame.into_data() {
                    to.write_all(&data)?;
                }
            }
            Ok(to.flush()?)
        }
        Image::Pull { at, images } => {
            let target = Target::open(&at.data_dir).await?;
            for image in images {
                for found in target.listed(Method::POST, &format!("/pull?image={}", encode(&image)), empty()).await? {
                    println!("{}", found.digests.first().unwrap_or(&found.id));
                }
            }
            Ok(())
        }
        Image::List { at, json } => {
            let found = Target::open(&at.data_dir).await?.listed(Method::GET, "/images", empty()).await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&found)?);
            } else {
                print!("{}", table(&found));
            }
            Ok(())
        }
        Image::Remove { at, images } => {
            let target = Target::open(&at.data_dir).await?;
            for image in images {
                target.listed(Method::DELETE, &format!("/images?image={}", encode(&image)), empty()).await?;
                println!("{image}");
            }
            Ok(())
        }
        Image::Prune { at } => {
            for gone in Target::open(&at.data_dir).await?.listed(Method::POST, "/prune", empty()).await? {
                println!("{}", gone.id);
            }
            Ok(())
        }
    }
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn empty() -> Body {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn table(images: &[Listed]) -> String {
    let mut rows = vec![["IMAGE", "TAG", "IMAGE ID", "SIZE"].map(str::to_owned)];
    for image in images {
        let id = image.id.trim_start_matches("sha256:").chars().take(13).collect::<String>();
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let size = format!("{:.1}MB", image.size as f64 / 1e6);
        for tag in image.tags.iter().map(String::as_str).chain(image.tags.is_empty().then_some("<none>:<none>")) {
            let (name, tag) = tag.rsplit_once(':').unwrap_or((tag, "<none>"));
            rows.push([name.to_owned(), tag.to_owned(), id.clone(), size.clone()]);
        }
    }
    let width = |c: usize| rows.iter().map(|r| r[c].len()).max().unwrap_or(0);
    let (a, b, c) = (width(0), width(1), width(2));
    rows.iter().map(|[name, tag, id, size]| format!("{name:a$}   {tag:b$}   {id:c$}   {size}\n")).collect()
}

/// Who answers: the running process, or this one.
enum Target {
    Running(PathBuf),
    Here { runtime: Embedded, _lock: paths::Lock },
}

impl Target {
    async fn open(data_dir: &Path) -> anyhow::Result<Self> {
        let paths = Paths::new(data_dir);
        let socket = paths.image_socket();
        if UnixStream::connect(&socket).await.is_ok() {
            return Ok(Self::Running(socket));
        }
        std::fs::create_dir_all(&paths.root).with_context(|| format!("cannot make {}", paths.root.display()))?;
        let lock = paths::lock(&paths.root)?;
        let runtime = Embedded::open(Options::new(&paths.runtime), Arc::new(LoopbackOnly)).await?;
        Ok(Self::Here { runtime, _lock: lock })
    }

    async fn call(&self, method: Method, path: &str, body: Body) -> anyhow::Result<Response<Body>> {
        let request = Request::builder().method(method).uri(path).header("host", "pintle").body(body)?;
        let response = match self {
            Self::Here { runtime, .. } => service::answer(runtime, request).await,
            Self::Running(socket) => {
                let stream = UnixStream::connect(socket).await.context("the running pintle does not answer")?;
                let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender.send_request(request).await?.map(|b| b.map_err(Into::into).boxed_unsync())
            }
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let text = text(response).await?;
        bail!("{}", String::from_utf8_lossy(&text))
    }

    async fn listed(&self, method: Method, path: &str, body: Body) -> anyhow::Result<Vec<Listed>> {
        let text = text(self.call(method, path, body).await?).await?;
        serde_json::from_slice(&text).context("the running pintle answers in a form this one does not know")
    }
}

async fn text(response: Response<Body>) -> anyhow::Result<Bytes> {
    let body = response.into_body().collect().await.map_err(|e| anyhow::anyhow!("the answer broke off: {e}"))?;
    Ok(body.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_for_people() {
        let image = |id: &str, tags: &[&str]| Listed {
            id: format!("sha256:{id}"),
            tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            digests: vec![],
            size: 1_550_000,
            pinned: true,
        };
        let got = table(&[image("0123456789abcdef", &["docker.io/library/a:1"]), image("ff", &[])]);
        assert_eq!(
            got,
            "IMAGE                 TAG      IMAGE ID        SIZE\n\
             docker.io/library/a   1        0123456789abc   1.6MB\n\
             <none>                <none>   ff              1.6MB\n"
                .replace("1.6MB", &format!("{:.1}MB", 1.55))
        );
    }
}
