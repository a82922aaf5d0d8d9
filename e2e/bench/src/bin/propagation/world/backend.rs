//! A backend that answers every request with 200, its port in a field, and nothing else.
//! It knows requests without bodies, one at a time.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::objects::BACKEND_HEADER;

/// Answers what is accepted from now on, until the process ends.
pub(super) fn serve(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks is the proxy's to notice.
            std::thread::spawn(move || answer(stream));
        }
    });
}

/// Each request ends with its head.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let port = stream.local_addr()?.port();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{BACKEND_HEADER}: {port}\r\n\r\n");
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..read]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            stream.write_all(answer.as_bytes())?;
        }
    }
}
