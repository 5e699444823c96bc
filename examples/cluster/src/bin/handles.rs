//! Handing connections over by one's own rule: the primary accepts, and gives clients of 127.0.0.2 to a worker of
//! their own. What Node's documentation shows of `subprocess.send(message, socket)`.

use std::time::Duration;

use allcores::{Builder, Fork, Handle, Role, Worker};
use allcores_examples::{Result, address, asked_to_stop};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    match allcores::role()? {
        Role::Primary(builder) => lead(builder).await,
        Role::Worker(worker) => serve(worker).await,
    }
}

async fn lead(builder: Builder) -> Result {
    let cluster = builder.keep(true).start().await?;
    let normal = cluster.fork_with(Fork::new().env("SERVICE", "normal")).await?;
    let special = cluster.fork_with(Fork::new().env("SERVICE", "special")).await?;
    let listener = TcpListener::bind(address()?).await?;
    println!("listening");
    let mut stop = std::pin::pin!(asked_to_stop());
    loop {
        let (stream, client) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // A client that has gone, or a lack that will pass.
                    eprintln!("accept: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            ended = cluster.ended() => return Ok(ended?),
            stopped = &mut stop => break stopped?,
        };
        let worker = if client.ip().to_string() == "127.0.0.2" { &special } else { &normal };
        if let Err(error) = worker.send_with_handle(&client, stream) {
            eprintln!("{client}: {error}");
        }
    }
    Ok(cluster.stop().await?)
}

async fn serve(worker: Worker) -> Result {
    let service = std::env::var("SERVICE")?;
    let mut shutdown = std::pin::pin!(worker.shutdown());
    loop {
        let message = tokio::select! {
            message = worker.next_message() => message,
            () = &mut shutdown => return Ok(()),
        };
        let Some(message) = message else { return Ok(()) };
        let client: std::net::SocketAddr = message.parse()?;
        if let Some(Handle::TcpStream(stream)) = message.take_handle() {
            let mut stream = TcpStream::from_std(stream)?;
            // One that has gone is nobody else's trouble.
            let _ = stream.write_all(format!("{service} service for {}\n", client.ip()).as_bytes()).await;
        }
    }
}
