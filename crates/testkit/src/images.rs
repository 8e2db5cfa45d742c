//! Images made on the spot: no registry is needed to test with real containers.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::run;

/// Makes an archive as `docker save` writes them; `$1` is the directory to work in, `$2` the image's name.
const SCRIPT: &str = r#"
set -eu
work=$(mktemp -d "$1/image.XXXXXX")
mkdir -p "$work/root/bin" "$work/root/etc" "$work/root/tmp" "$work/root/root" "$work/root/var" "$work/out"
cp "$(command -v busybox)" "$work/root/bin/busybox"
chmod 1777 "$work/root/tmp"
for applet in $("$work/root/bin/busybox" --list); do
  [ "$applet" = busybox ] || ln -s busybox "$work/root/bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' > "$work/root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' > "$work/root/etc/group"
tar -C "$work/root" --sort=name --owner=0 --group=0 --numeric-owner -cf "$work/out/layer.tar" .
layer=$(sha256sum "$work/out/layer.tar" | cut -d' ' -f1)
arch=$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/')
printf '{"architecture":"%s","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
  "$arch" "$layer" > "$work/config"
config=$(sha256sum "$work/config" | cut -d' ' -f1)
mv "$work/config" "$work/out/$config.json"
printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$config" "$2" > "$work/out/manifest.json"
tar -C "$work/out" -cf "$work.tar" manifest.json "$config.json" layer.tar
rm -rf "$work"
printf '%s' "$work.tar"
"#;

/// An archive of an image with Debian's static busybox and links for its programs.
///
/// # Panics
/// When busybox or tar is missing: `scripts/setup` installs them.
#[must_use]
pub fn busybox(dir: &Path, name: &str) -> PathBuf {
    let mut c = Command::new("sh");
    c.args(["-c", SCRIPT, "busybox"]).arg(dir).arg(name);
    PathBuf::from(run(c, "").ok())
}
