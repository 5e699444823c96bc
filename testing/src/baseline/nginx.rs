//! nginx in front of servers, each at an address of its own: as a proxy of connections, which does not look into them.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Install, Process};

/// Starts nginx in the foreground, with a worker for each core, its files in this folder.
pub(super) fn start(
    folder: &TempDir,
    address: SocketAddr,
    servers: &[SocketAddr],
) -> anyhow::Result<Process> {
    let module = Install::Nginx.product("content/usr/lib/nginx/modules/ngx_stream_module.so")?;
    let settings = folder.path().join("nginx.conf");
    fs::write(&settings, text(&module.to_string_lossy(), address, servers))?;
    let mut command = Command::new(Install::Nginx.product("content/usr/sbin/nginx")?);
    command.arg("-p").arg(folder.path()).arg("-c").arg(settings).args(["-e", "stderr"]);
    Process::spawn(command.stdin(Stdio::null()))
}

fn text(module: &str, address: SocketAddr, servers: &[SocketAddr]) -> String {
    let mut upstream = String::new();
    for server in servers {
        // Writing to a string does not fail.
        let _ = write!(upstream, " server {server};");
    }
    // Who is root would otherwise need a user of nginx's own; others are told that the word has no effect.
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    format!(
        "load_module {module};\n{user}daemon off;\npid nginx.pid;\nerror_log stderr warn;\nworker_processes auto;\n\
         events {{ worker_connections 4096; }}\n\
         stream {{ upstream servers {{{upstream} }} server {{ listen {address}; proxy_pass servers; }} }}\n"
    )
}
