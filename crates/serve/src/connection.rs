//! A connection that is let go once nothing has moved on it for too long, as where a client does not read its answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// A stream that notes when something was last read or written.
pub(crate) struct Watched {
    stream: TcpStream,
    moved: Moved,
}

/// When something last moved, in milliseconds since the beginning.
#[derive(Clone)]
struct Moved(Arc<AtomicU64>, Instant);

/// What notices that nothing moves.
pub(crate) struct Watch {
    moved: Moved,
    most: Duration,
}

impl Watched {
    pub fn new(stream: TcpStream, most: Duration) -> (Watched, Watch) {
        let moved = Moved(Arc::default(), Instant::now());
        (Watched { stream, moved: moved.clone() }, Watch { moved, most })
    }

    fn noted<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Ok(_)) = polled {
            let Moved(last, start) = &self.moved;
            last.store(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        polled
    }
}

impl Watch {
    /// Returns once nothing has moved for too long.
    pub async fn still(&self) {
        let Moved(last, start) = &self.moved;
        loop {
            let idle = start.elapsed().saturating_sub(Duration::from_millis(last.load(Ordering::Relaxed)));
            match self.most.checked_sub(idle) {
                Some(rest) if !rest.is_zero() => sleep(rest).await,
                _ => return,
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, to);
        self.noted(polled)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, from);
        self.noted(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, from);
        self.noted(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    #[test]
    fn what_moves_is_noted_and_what_stands_is_let_go() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut stream, watch) =
                Watched::new(listener.accept().await.unwrap().0, Duration::from_millis(50));
            let last = || watch.moved.0.load(Ordering::Relaxed);
            assert_eq!(last(), 0);
            sleep(Duration::from_millis(20)).await;
            client.write_all(b"x").await.unwrap();
            stream.read_u8().await.unwrap();
            let read = last();
            assert!(read >= 20, "{read}");
            sleep(Duration::from_millis(20)).await;
            stream.write_all(b"x").await.unwrap();
            assert!(last() >= read + 20, "{read} {}", last());
            timeout(Duration::from_secs(60), watch.still()).await.unwrap();
            assert!(watch.moved.1.elapsed() >= Duration::from_millis(last() + 50));
        });
    }
}
