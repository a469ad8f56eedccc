//! A channel between two processes whose messages can carry open file descriptors (`SCM_RIGHTS`,
//! unix(7)). Messages are JSON, kept apart by the socket itself (`SOCK_SEQPACKET`).
//!
//! A child gets its end as standard input, the one descriptor that a process can give to a new
//! program without unsafe code.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, RecvMsg, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::clock::{Clock, SystemClock};

/// The most descriptors in one message; the kernel takes 253.
pub const MAX_DESCRIPTORS: usize = 128;
/// The longest message, in bytes. A longer one is cut by the kernel, and so no JSON.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// One end of a channel.
#[derive(Debug)]
pub struct DescriptorChannel(OwnedFd);

/// A message and the descriptors that came with it.
#[derive(Debug)]
pub struct Received<T> {
    /// The message.
    pub message: T,
    /// Its descriptors, in the order in which they were sent.
    pub descriptors: Vec<OwnedFd>,
}

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The other end is closed: its process has ended, unless it closed it on purpose.
    #[error("the other process closed the channel")]
    Closed,
    /// Nothing came in time.
    #[error("the other process said nothing in time")]
    TimedOut,
    /// The other process says what this one does not know.
    #[error("the other process sent a message that this version does not know: {0}")]
    Unknown(serde_json::Error),
    /// The system refuses to read.
    #[error("the channel cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl DescriptorChannel {
    /// Opens a channel. Returns one end, and the other one for a child's standard input.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn open() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), theirs))
    }

    /// Takes the end that is this process's standard input, which is empty from then on. `None` if
    /// standard input is something else.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn from_standard_input() -> io::Result<Option<Self>> {
        let input = rustix::stdio::stdin();
        if !matches!(sockopt::socket_type(input), Ok(SocketType::SEQPACKET)) {
            return Ok(None);
        }
        let ours = input.try_clone_to_owned()?;
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        Ok(Some(Self(ours)))
    }

    /// Sends a message with at most [`MAX_DESCRIPTORS`] descriptors.
    ///
    /// # Errors
    /// The other end is closed, or the system refuses it.
    pub fn send<T: Serialize>(&self, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        sendmsg(&self.0, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for a message, at most so long; without a `patience`, until the other end closes.
    /// Blocks.
    ///
    /// # Errors
    /// See [`ReceiveError`].
    pub fn receive<T: DeserializeOwned>(
        &self,
        patience: Option<Duration>,
    ) -> Result<Received<T>, ReceiveError> {
        self.wait_until_readable(patience)?;
        let mut text = vec![0; MAX_MESSAGE_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = match self.read(&mut text, &mut control) {
            // The other process ended with a message unread. The kernel says that first, once, and
            // then gives what that process said before.
            Err(Errno::CONNRESET) => self.read(&mut text, &mut control),
            received => received,
        };
        let received = match received {
            Ok(received) => received,
            Err(Errno::CONNRESET) => return Err(ReceiveError::Closed),
            Err(error) => return Err(io::Error::from(error).into()),
        };
        if received.bytes == 0 {
            return Err(ReceiveError::Closed);
        }
        let mut descriptors = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(carried) = part {
                descriptors.extend(carried);
            }
        }
        let message = serde_json::from_slice(&text[..received.bytes]).map_err(ReceiveError::Unknown)?;
        Ok(Received { message, descriptors })
    }

    fn read(&self, text: &mut [u8], control: &mut RecvAncillaryBuffer<'_>) -> rustix::io::Result<RecvMsg> {
        recvmsg(&self.0, &mut [IoSliceMut::new(text)], control, RecvFlags::CMSG_CLOEXEC)
    }

    fn wait_until_readable(&self, patience: Option<Duration>) -> Result<(), ReceiveError> {
        let until: Option<Instant> = patience.map(|patience| SystemClock.monotonic() + patience);
        loop {
            let left = until.map(|until| until.saturating_duration_since(SystemClock.monotonic()));
            let left = left.map(|left| Timespec::try_from(left).unwrap_or_default());
            match poll(&mut [PollFd::new(&self.0.as_fd(), PollFlags::IN)], left.as_ref()) {
                Ok(0) => return Err(ReceiveError::TimedOut),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn a_message_carries_open_files_and_an_end_is_noticed() {
        let (ours, theirs) = DescriptorChannel::open().expect("a channel");
        let theirs = DescriptorChannel(theirs);
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"carried").expect("written");
        ours.send(&("first", 1), &[]).expect("sent");
        ours.send(&("second", 2), &[file.as_fd(), file.as_fd()]).expect("sent");
        let first = theirs.receive::<(String, u8)>(None).expect("a message");
        assert_eq!((first.message.0.as_str(), first.descriptors.len()), ("first", 0));
        let second = theirs.receive::<(String, u8)>(None).expect("a message");
        assert_eq!((second.message.1, second.descriptors.len()), (2, 2));
        let mut carried = File::from(second.descriptors.into_iter().next().expect("two"));
        let mut text = String::new();
        carried.rewind().expect("rewound");
        carried.read_to_string(&mut text).expect("read");
        assert_eq!(text, "carried");
        let nothing = theirs.receive::<u8>(Some(Duration::ZERO));
        assert!(matches!(nothing, Err(ReceiveError::TimedOut)), "{nothing:?}");
        ours.send(&"unknown", &[]).expect("sent");
        assert!(matches!(theirs.receive::<u8>(None), Err(ReceiveError::Unknown(_))));
        drop(ours);
        assert!(matches!(theirs.receive::<u8>(None), Err(ReceiveError::Closed)));
        assert!(theirs.send(&1, &[]).is_err(), "nobody reads");
    }

    #[test]
    fn the_last_words_of_a_process_that_read_nothing_are_heard() {
        let (ours, theirs) = DescriptorChannel::open().expect("a channel");
        let theirs = DescriptorChannel(theirs);
        theirs.send(&"unread", &[]).expect("sent");
        ours.send(&"last words", &[]).expect("sent");
        drop(ours);
        let heard = theirs.receive::<String>(None).expect("a message");
        assert_eq!(heard.message, "last words");
        assert!(matches!(theirs.receive::<String>(None), Err(ReceiveError::Closed)));
    }
}
