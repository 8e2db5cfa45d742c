//! Takes the descriptions of kinds and fields out of the `k8s-openapi` crate, whose source has them in a regular form,
//! and packs them for `src/openapi/texts.rs`. Also tells the content of the OpenAPI documents by a hash.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let own = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // What the documents are made from: a client that keeps one by its hash must not take it for that of another build.
    let made_from = ["src/openapi", "../schema/src/table", "../api/src/resources.txt", "build.rs"].map(|p| own.join(p));
    for path in made_from.iter().chain([&own.join("../../Cargo.lock")]) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for path in &made_from {
        hash_of(path, &mut hash)?;
    }
    println!("cargo::rustc-env=PINTLE_OPENAPI_HASH={hash:016x}");

    let source = k8s_openapi(&own)?.join("src/v1_36");
    let mut files = Vec::new();
    rust_files(&source, &mut files)?;
    files.sort();
    let mut text = String::new();
    for file in &files {
        descriptions(&fs::read_to_string(file)?, &mut text);
    }
    // Its form is that of one version, which the lock file names; a change of form must be seen here, not by users.
    let fields = text.lines().filter(|l| l.starts_with('\t')).count();
    if fields < 2500 {
        return Err(format!("only {fields} descriptions found in {}: has its form changed?", source.display()).into());
    }
    let file = fs::File::create(out.join("descriptions.gz"))?;
    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::best());
    packed.write_all(text.as_bytes())?;
    packed.finish()?;
    Ok(())
}

fn hash_of(path: &Path, hash: &mut u64) -> io::Result<()> {
    if path.is_dir() {
        let mut inside: Vec<_> = fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<io::Result<_>>()?;
        inside.sort();
        for p in &inside {
            hash_of(p, hash)?;
        }
        return Ok(());
    }
    for byte in fs::read(path)? {
        *hash = (*hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    Ok(())
}

/// Where the source of `k8s-openapi` is: cargo knows.
fn k8s_openapi(own: &Path) -> Outcome<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = env::var("TARGET")?;
    // Everything needed has been fetched by the build that runs this, but for what no target of the build needs.
    let mut said = String::new();
    for offline in [true, false] {
        let mut command = Command::new(&cargo);
        command.args(["metadata", "--format-version", "1", "--filter-platform", &target]).current_dir(own);
        if offline {
            command.arg("--offline");
        }
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let found = text.split("\"manifest_path\":\"").skip(1).filter_map(|t| t.split('"').next()).find(|path| {
            let folder = Path::new(path).parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
            folder == "k8s-openapi" || folder.starts_with("k8s-openapi-0")
        });
        if let Some(folder) = found.and_then(|path| Path::new(path).parent()) {
            return Ok(folder.to_owned());
        }
        said = String::from_utf8_lossy(&output.stderr).into_owned();
    }
    Err(format!("cargo metadata does not name k8s-openapi: {said}").into())
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, into)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

/// The string literal that ends a line, without its quotes, and still escaped.
fn literal(line: &str) -> Option<&str> {
    let line = line.trim_end_matches([',', ';', ')']).trim_end_matches(".into(");
    line.strip_suffix('"')?.split_once(": \"").map(|(_, text)| text)
}

/// Appends `NAME\tTEXT`, and a line `\tFIELD\tTEXT` for each of its fields.
fn descriptions(source: &str, out: &mut String) {
    let mut field = "";
    let mut in_schema = false;
    for line in source.lines() {
        let depth = line.len() - line.trim_start().len();
        let text = line.trim_start();
        if text.starts_with("impl crate::schemars::JsonSchema") {
            in_schema = true;
        } else if in_schema && line == "}" {
            in_schema = false;
        }
        if !in_schema {
            continue;
        }
        if depth == 8 && text.starts_with("\"io.k8s.") {
            out.push_str(text.split('"').nth(1).unwrap_or_default());
            out.push_str("\t\n");
        } else if depth == 12 && text.starts_with("\"description\": ") {
            let at = out.trim_end_matches('\n').len();
            out.insert_str(at, literal(text).unwrap_or_default());
        } else if depth == 16 && text.starts_with('"') {
            field = text.split('"').nth(1).unwrap_or_default();
        } else if depth == 20 && !field.is_empty() {
            let found = match text.split_once("insert(\"description\".into(), \"") {
                Some((_, rest)) => rest.strip_suffix("\".into());"),
                None if text.starts_with("\"description\": ") => literal(text),
                None => None,
            };
            if let Some(found) = found {
                *out += &format!("\t{field}\t{found}\n");
                field = "";
            }
        }
    }
}
