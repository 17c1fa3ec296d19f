//! One client connection: bytes out, bytes in at whatever pace the group reads.

use crate::http::ws::WsDecoder;
use crate::num;
use crate::run::scenario::Group;
use std::io;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;
/// Receive buffer of a slow reader: small, so that its slowness reaches the server.
const SLOW_BUFFER_BYTES: u32 = 4096;
/// Consumed bytes above which the buffer is moved together.
const COMPACT_BYTES: usize = 256 * 1024;

/// A connection and what was read from it but not yet used.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: TcpStream,
    buffer: Vec<u8>,
    used: usize,
    pace: Option<u64>,
    /// Whether a request was answered on it before.
    pub(crate) reused: bool,
    /// The frame decoder, once it speaks WebSocket.
    pub(crate) ws: Option<WsDecoder>,
    /// Bytes received since the last look.
    pub(crate) bytes_in: u64,
    /// Bytes sent since the last look.
    pub(crate) bytes_out: u64,
}

impl Conn {
    /// Connects.
    pub(crate) async fn connect(group: &Group) -> io::Result<Self> {
        let socket = if group.addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if group.read_bytes_per_s.is_some() {
            socket.set_recv_buffer_size(SLOW_BUFFER_BYTES)?;
        }
        let stream = socket.connect(group.addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            used: 0,
            pace: group.read_bytes_per_s,
            reused: false,
            ws: None,
            bytes_in: 0,
            bytes_out: 0,
        })
    }

    /// Sends all of it.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.bytes_out += num::to_u64(bytes.len());
        Ok(())
    }

    /// What was read and not yet consumed.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    /// Marks bytes as used.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.used += bytes;
        if self.used == self.buffer.len() {
            self.buffer.clear();
            self.used = 0;
        } else if self.used > COMPACT_BYTES {
            self.buffer.drain(..self.used);
            self.used = 0;
        }
    }

    /// Reads more; 0 is the end of the connection.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        let read = match self.pace {
            None => {
                self.buffer.reserve(READ_BYTES / 4);
                self.stream.read_buf(&mut self.buffer).await?
            }
            Some(pace) => {
                // 20 reads a second, each of a twentieth of the pace.
                let part = num::to_usize((pace / 20).max(1));
                let pause = Duration::from_secs_f64(part as f64 / pace.max(1) as f64);
                tokio::time::sleep(pause).await;
                let mut some = vec![0; part];
                let read = self.stream.read(&mut some).await?;
                self.buffer.extend_from_slice(&some[..read]);
                read
            }
        };
        self.bytes_in += num::to_u64(read);
        Ok(read)
    }

    /// Gives the memory of the buffer back: an idle connection of the crowd holds none.
    pub(crate) fn shrink(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
    }

    /// Waits until there is something to read, without a buffer.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// Closes by RST.
    pub(crate) fn reset(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}
