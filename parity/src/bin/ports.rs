//! A server that listens on many ports: for `cargo xtask bench growth`.
//!
//! It does as little as a server can: it answers whatever it is asked with its pid, and ends the connection. It listens at `HOST`
//! on `PORTS` ports from `PORT` on, as a worker of the crate's, so that connections can also be handed to it.

use std::env;
use std::error::Error;
use std::io;
use std::process;

use allcores::{Listener, Role};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// More than any request has that it gets.
const LONGEST: usize = 4096;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Role::Worker(worker) = allcores::role()? else { return Err("it is run by `allcores run`".into()) };
    let (host, first, count) = (env::var("HOST")?, number("PORT")?, number("PORTS")?);
    for port in first..first + count {
        tokio::spawn(accept(worker.listen((host.as_str(), port)).await?));
    }
    worker.shutdown().await;
    Ok(())
}

fn number(name: &str) -> Result<u16, Box<dyn Error>> {
    Ok(env::var(name)?.parse()?)
}

async fn accept(mut listener: Listener) {
    loop {
        match listener.accept().await {
            // Who goes away before it has its answer is the client's affair.
            Ok((stream, _)) => drop(tokio::spawn(answer(stream))),
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut request = Vec::with_capacity(LONGEST);
    while !request.ends_with(b"\r\n\r\n") && request.len() < LONGEST {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let body = format!("{}\n", process::id());
    let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await
}
