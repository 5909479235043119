//! A small SSH daemon that takes a password, and hangs up as soon as it has said all.

use std::sync::Arc;

use russh::keys::{Algorithm, PrivateKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, run_stream};
use russh::{Channel, ChannelId, Disconnect};
use tokio::net::TcpListener;

struct Curt;

impl Handler for Curt {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let is_right = user == "vcap" && password == "secret";
        Ok(if is_right { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)?;
        session.data(channel, command.repeat(1000))?;
        session.exit_status_request(channel, 5)?;
        session.close(channel)?;
        let handle = session.handle();
        tokio::spawn(async move {
            let all = "that was all".to_owned();
            let _ = handle.disconnect(Disconnect::ByApplication, all, String::new()).await;
        });
        Ok(())
    }
}

/// At this port.
pub(crate) async fn curt() -> u16 {
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
    let config = Arc::new(Config { keys: vec![key], ..Config::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(session) = run_stream(Arc::clone(&config), stream, Curt).await {
                tokio::spawn(session);
            }
        }
    });
    port
}
