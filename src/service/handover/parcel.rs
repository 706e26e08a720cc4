//! [`Parcel`]: state and sockets between two processes. Sealed, it is one pair of unix sockets, in which everything is in
//! flight: the bytes in an anonymous file (memfd) and the listeners in the first message, the sockets in messages of further
//! pairs. So no file is left anywhere, and few descriptors have to be passed on, however many sockets there are.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};
use thiserror::Error;

/// The most descriptors in one message (unix(7), `SCM_RIGHTS`).
const AT_ONCE: usize = 253;
/// The version of the form of a parcel.
pub const PARCEL_VERSION: u32 = 2;
/// The beginning of the first message.
const MAGIC: &[u8; 4] = b"pwrd";
/// The length of the first message: the beginning, the version, then the numbers of blobs, listeners and sockets.
const FIRST: usize = 32;
/// The most listeners that travel. The next process binds the addresses of the others again.
const LISTENERS: usize = AT_ONCE - 1;

/// The reason why a parcel cannot be opened.
#[derive(Debug, Error)]
pub enum ParcelError {
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not of this form.
    #[error("not a parcel of this version")]
    Foreign,
    /// Something is missing.
    #[error("parcel is incomplete")]
    Incomplete,
}

/// State and sockets that one process leaves to the next.
#[derive(Debug, Default)]
pub struct Parcel {
    /// The state, in parts.
    pub blobs: Vec<Vec<u8>>,
    /// The listeners, in the order of the configuration.
    pub listeners: Vec<OwnedFd>,
    /// The sockets that belong to the state.
    pub sockets: Vec<OwnedFd>,
}

/// A parcel on its way. It can be received once.
#[derive(Debug)]
pub struct SealedParcel {
    /// The end to which everything was sent. Whoever keeps the parcel keeps both ends: one whose other end is closed counts as
    /// hung up.
    sending: Option<OwnedFd>,
    pub(super) receiving: OwnedFd,
}

/// A parcel that could not be sealed.
#[derive(Debug, Error)]
#[error("{error}")]
pub struct UnsealedParcel {
    /// The error of the operating system.
    pub error: io::Error,
    /// The parcel as it was.
    pub parcel: Parcel,
}

impl Parcel {
    /// Seals the parcel.
    ///
    /// # Errors
    /// Returns the error of the operating system, and the parcel.
    pub fn seal(self) -> Result<SealedParcel, UnsealedParcel> {
        let Self { blobs, listeners, sockets } = self;
        let counts = [blobs.len(), listeners.len(), sockets.len()];
        let memory = match store(blobs) {
            Ok(memory) => memory,
            Err((error, blobs)) => return Err(UnsealedParcel { error, parcel: Self { blobs, listeners, sockets } }),
        };
        SealedParcel::send(counts, &memory, &listeners, &sockets).map_err(|error| {
            let blobs = load(memory, counts[0]).unwrap_or_else(|error| {
                tracing::error!(%error, "cannot read the state of the sessions back");
                Vec::new()
            });
            UnsealedParcel { error, parcel: Self { blobs, listeners, sockets } }
        })
    }
}

impl SealedParcel {
    /// Sends everything into a new pair.
    fn send(counts: [usize; 3], memory: &OwnedFd, listeners: &[OwnedFd], sockets: &[OwnedFd]) -> io::Result<Self> {
        let (sending, receiving) = pair()?;
        let [blobs, listening, left] = counts;
        let mut first = MAGIC.to_vec();
        first.extend_from_slice(&PARCEL_VERSION.to_be_bytes());
        for count in [blobs, listening.min(LISTENERS), left] {
            first.extend_from_slice(&(count as u64).to_be_bytes());
        }
        let with_first: Vec<_> =
            [memory].into_iter().chain(listeners.iter().take(LISTENERS)).map(AsFd::as_fd).collect();
        if !send(&sending, &first, &with_first)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let all: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        let mut carriers = Vec::new();
        let mut left = all.as_slice();
        while !left.is_empty() {
            let (carrier, received) = pair()?;
            let before = left.len();
            while !left.is_empty() {
                let (now, later) = left.split_at(left.len().min(AT_ONCE));
                if !send(&carrier, b"s", now)? {
                    break;
                }
                left = later;
            }
            if left.len() == before {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            carriers.push(received);
        }
        let carriers: Vec<_> = carriers.iter().map(AsFd::as_fd).collect();
        for carriers in carriers.chunks(AT_ONCE) {
            if !send(&sending, b"c", carriers)? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        Ok(Self { sending: Some(sending), receiving })
    }

    /// Returns the parcel whose ends these are, if there are any: both ends are alike.
    pub(super) fn of(ends: Vec<OwnedFd>) -> Option<Self> {
        let mut ends = ends.into_iter();
        let first = ends.next()?;
        let second = ends.next();
        // Only the receiving end has messages.
        let has_messages = |end: &OwnedFd| {
            recv(end, &mut [0u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok_and(|(_, len)| len > 0)
        };
        Some(match second {
            Some(second) if !has_messages(&first) => Self { sending: Some(first), receiving: second },
            second => Self { sending: second, receiving: first },
        })
    }

    /// Returns both ends, to be passed on.
    pub(super) fn ends(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sending.iter().chain([&self.receiving]).map(AsFd::as_fd)
    }

    /// Opens the parcel. If this process may not open that many descriptors, the last sockets are missing.
    ///
    /// # Errors
    /// Returns an error if it is damaged or incomplete, or the error of the operating system.
    pub fn open(self) -> Result<Parcel, ParcelError> {
        let FirstMessage { blobs, sockets: total, memory, listeners } =
            FirstMessage::receive(&self.receiving, RecvFlags::empty())?;
        let blobs = load(memory, blobs)?;
        let (mut all, mut carriers): (Vec<OwnedFd>, _) = (Vec::new(), Vec::new());
        let mut truncated = false;
        while all.len() < total && !truncated {
            if carriers.is_empty() {
                let received = receive(&self.receiving, &mut [0; 1], RecvFlags::empty())?;
                (carriers, truncated) = (received.descriptors, received.truncated);
                carriers.reverse();
            }
            let Some(carrier) = carriers.pop() else { break };
            // Everything was sent before: an error is the end of what this carrier has.
            while let Ok(received) = receive(&carrier, &mut [0; 1], RecvFlags::empty()) {
                let is_end = received.descriptors.is_empty();
                all.extend(received.descriptors);
                truncated |= received.truncated;
                if truncated || is_end {
                    break;
                }
            }
        }
        if all.len() > total || (all.len() < total && !truncated) {
            return Err(ParcelError::Incomplete);
        }
        Ok(Parcel { blobs, listeners, sockets: all })
    }

    /// Returns copies of the listeners, and leaves the parcel as it is.
    ///
    /// # Errors
    /// As [`SealedParcel::open`].
    pub(super) fn listeners(&self) -> Result<Vec<OwnedFd>, ParcelError> {
        FirstMessage::receive(&self.receiving, RecvFlags::PEEK).map(|first| first.listeners)
    }
}

/// The content of the message that is sent first.
struct FirstMessage {
    /// The number of blobs in `memory`.
    blobs: usize,
    /// The number of sockets that follow.
    sockets: usize,
    memory: OwnedFd,
    listeners: Vec<OwnedFd>,
}

impl FirstMessage {
    fn receive(socket: &OwnedFd, flags: RecvFlags) -> Result<Self, ParcelError> {
        let mut first = [0; FIRST];
        let ReceivedMessage { len, descriptors, .. } = receive(socket, &mut first, flags)?;
        let version = PARCEL_VERSION.to_be_bytes();
        let counts = first.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(&version)).filter(|_| len == FIRST);
        let counts = counts.ok_or(ParcelError::Foreign)?.as_chunks::<8>().0;
        let mut counts = counts.iter().map(|count| usize::try_from(u64::from_be_bytes(*count)));
        let mut next = || counts.next().and_then(Result::ok).ok_or(ParcelError::Incomplete);
        let (blobs, listening, sockets) = (next()?, next()?, next()?);
        let mut descriptors = descriptors.into_iter();
        let memory = descriptors.next().ok_or(ParcelError::Incomplete)?;
        let listeners: Vec<_> = descriptors.collect();
        if listeners.len() != listening {
            return Err(ParcelError::Incomplete);
        }
        Ok(Self { blobs, sockets, memory, listeners })
    }
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sends a message with descriptors. Returns false if the pair is full.
fn send(socket: &OwnedFd, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<bool> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    match sendmsg(socket, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A message with its descriptors.
struct ReceivedMessage {
    len: usize,
    descriptors: Vec<OwnedFd>,
    /// True if this process may not open more descriptors. Those that are missing are closed.
    truncated: bool,
}

fn receive(socket: &OwnedFd, text: &mut [u8], flags: RecvFlags) -> io::Result<ReceivedMessage> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(text)], &mut control, flags)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let truncated = received.flags.contains(ReturnFlags::CTRUNC);
    Ok(ReceivedMessage { len: received.bytes, descriptors, truncated })
}

/// Writes blobs, each after its length, to an anonymous file. Frees each once it is written: the memory for all of them is not
/// needed twice. Returns them after an error.
fn store(blobs: Vec<Vec<u8>>) -> Result<OwnedFd, (io::Error, Vec<Vec<u8>>)> {
    let mut file = match memfd_create("pushward", MemfdFlags::CLOEXEC) {
        Ok(file) => File::from(file),
        Err(error) => return Err((error.into(), blobs)),
    };
    let mut blobs = blobs.into_iter();
    let mut written = 0;
    while let Some(blob) = blobs.next() {
        let len = (blob.len() as u64).to_be_bytes();
        if let Err(error) = file.write_all(&len).and_then(|()| file.write_all(&blob)) {
            let mut all = load(file.into(), written).unwrap_or_default();
            all.push(blob);
            all.extend(blobs);
            return Err((error, all));
        }
        written += 1;
    }
    Ok(file.into())
}

fn load(memory: OwnedFd, count: usize) -> Result<Vec<Vec<u8>>, ParcelError> {
    let mut file = File::from(memory);
    let mut left = file.metadata()?.len();
    file.rewind()?;
    let mut file = io::BufReader::new(file);
    let mut blobs = Vec::new();
    for _ in 0..count {
        let mut len = [0; 8];
        file.read_exact(&mut len).map_err(|_| ParcelError::Incomplete)?;
        let len = u64::from_be_bytes(len);
        left = left.checked_sub(8).and_then(|left| left.checked_sub(len)).ok_or(ParcelError::Incomplete)?;
        let mut blob = vec![0; usize::try_from(len).map_err(|_| ParcelError::Incomplete)?];
        file.read_exact(&mut blob)?;
        blobs.push(blob);
    }
    Ok(blobs)
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;

    fn address(socket: &OwnedFd) -> SocketAddr {
        TcpStream::from(socket.try_clone().unwrap()).local_addr().unwrap()
    }

    #[test]
    fn state_and_sockets_arrive_in_order() {
        rlimit::increase_nofile_limit(u64::MAX).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        // As many as a large process has: copies of one connection, with one that is different.
        let copies = 6000;
        let mut sockets: Vec<OwnedFd> = (0..copies).map(|_| one.try_clone().unwrap().into()).collect();
        sockets.insert(4000, far.try_clone().unwrap().into());
        let expected: Vec<_> = sockets.iter().map(address).collect();
        let blobs = vec![b"first".to_vec(), Vec::new(), vec![7; 3 << 20]];
        let listeners = vec![OwnedFd::from(listener.try_clone().unwrap())];
        let began = Instant::now();
        let sealed = Parcel { blobs: blobs.clone(), listeners, sockets }.seal().unwrap();
        let sealed_in = began.elapsed();
        let peeked: Vec<_> = (0..2).map(|_| address(&sealed.listeners().unwrap()[0])).collect();
        assert_eq!(peeked, [listener.local_addr().unwrap(); 2]);
        let opened = sealed.open().unwrap();
        println!("{copies} sockets: sealed in {sealed_in:?}, opened in {:?}", began.elapsed() - sealed_in);
        assert_eq!(opened.blobs, blobs);
        assert_eq!(opened.sockets.iter().map(address).collect::<Vec<_>>(), expected);
        assert_eq!(address(&opened.listeners[0]), listener.local_addr().unwrap());
        far.write_all(b"on").unwrap();
        let mut text = [0; 2];
        TcpStream::from(opened.sockets.into_iter().next().unwrap()).read_exact(&mut text).unwrap();
        assert_eq!(&text, b"on");
    }

    #[test]
    fn a_parcel_without_its_first_message_or_its_sockets_is_refused() {
        let (_sending, receiving) = pair().unwrap();
        let empty = SealedParcel { sending: None, receiving };
        assert!(matches!(empty.open(), Err(ParcelError::Io(_))));
        let (sending, receiving) = pair().unwrap();
        assert!(send(&sending, b"something else", &[]).is_ok_and(|sent| sent));
        let foreign = SealedParcel { sending: Some(sending), receiving };
        assert!(matches!(foreign.open(), Err(ParcelError::Foreign)));
        let (sending, receiving) = pair().unwrap();
        let mut first = [MAGIC.as_slice(), &PARCEL_VERSION.to_be_bytes()].concat();
        [1_u64, 0, u64::MAX].iter().for_each(|count| first.extend_from_slice(&count.to_be_bytes()));
        assert!(send(&sending, &first, &[store(vec![vec![1]]).unwrap().as_fd()]).unwrap());
        let incomplete = SealedParcel { sending: Some(sending), receiving };
        assert!(incomplete.open().is_err());
    }
}
