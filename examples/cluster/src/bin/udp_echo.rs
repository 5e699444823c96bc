//! Datagrams: the kernel spreads clients over the workers, and keeps each with one of them.

use allcores::{Builder, Role, Worker};
use allcores_examples::{Result, address};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    match allcores::role()? {
        Role::Primary(builder) => lead(builder).await,
        Role::Worker(worker) => serve(worker).await,
    }
}

async fn lead(builder: Builder) -> Result {
    Ok(builder.workers(4).keep(true).serve().await?)
}

async fn serve(worker: Worker) -> Result {
    let socket = worker.bind_udp(address()?).await?;
    println!("worker {} listens", worker.id());
    let mut shutdown = std::pin::pin!(worker.shutdown());
    let mut datagram = [0; 1500];
    loop {
        let (length, client) = tokio::select! {
            received = socket.recv_from(&mut datagram) => received?,
            () = &mut shutdown => return Ok(()),
        };
        let answer = [format!("worker {}: ", worker.id()).as_bytes(), &datagram[..length]].concat();
        // Who sent it may have named a port that there is none of.
        let _ = socket.send_to(&answer, client).await;
    }
}
