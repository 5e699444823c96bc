//! A chat over WebSocket, where each room lives in one worker: connections stick by the room that they ask for, so
//! that who is in a room shares memory, and no message crosses a process.
//!
//! Connect to `ws://127.0.0.1:8000/?room=NAME`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use allcores::{Builder, ListenOptions, Policy, Role, StickyBy, Worker};
use allcores_examples::{Result, address};
use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use tokio::sync::broadcast::{self, error::RecvError};

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
    let by_room = ListenOptions::new().policy(Policy::Sticky(StickyBy::Query("room".into())));
    let listener = worker.listen_with(address()?, by_room).await?;
    println!("worker {} listens", worker.id());
    let chat = Chat { worker: worker.clone(), rooms: Arc::default() };
    let app = Router::new().route("/", get(enter)).with_state(chat);
    axum::serve(listener, app).with_graceful_shutdown(worker.shutdown()).await?;
    Ok(())
}

#[derive(Clone)]
struct Chat {
    worker: Worker,
    rooms: Arc<Mutex<HashMap<String, broadcast::Sender<String>>>>,
}

#[derive(Deserialize)]
struct Door {
    room: String,
}

async fn enter(State(chat): State<Chat>, Query(door): Query<Door>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |socket| talk(chat, door.room, socket).await)
}

/// One member, until it leaves or the worker does.
async fn talk(chat: Chat, room: String, mut socket: WebSocket) {
    let said = chat.room(&room);
    let mut heard = said.subscribe();
    let mut shutdown = std::pin::pin!(chat.worker.shutdown());
    let welcome = format!("{room} is in worker {}", chat.worker.id());
    if socket.send(Message::from(welcome)).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            line = socket.recv() => match line {
                Some(Ok(Message::Text(line))) => drop(said.send(line.to_string())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            line = heard.recv() => match line {
                Ok(line) => if socket.send(Message::from(line)).await.is_err() {
                    return;
                },
                // It was too slow for some.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            () = &mut shutdown => return,
        }
    }
}

impl Chat {
    fn room(&self, name: &str) -> broadcast::Sender<String> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        // Who is too slow for this many lines misses some.
        rooms.entry(name.to_owned()).or_insert_with(|| broadcast::Sender::new(64)).clone()
    }
}
