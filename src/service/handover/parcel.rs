//! [`Parcel`]: state and sockets between two processes. Sealed, it is one pair of unix sockets, in which everything is in
//! flight: the bytes in an anonymous file (memfd), the sockets in messages of further pairs. So no file is left anywhere, and
//! few descriptors have to be passed on, however many sockets there are.

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
/// The beginning of the first message: name and version of the form.
const MAGIC: &[u8; 8] = b"pushwrd1";
/// The length of the first message: the beginning, then the numbers of blobs, listeners and sockets.
const FIRST: usize = 32;

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
    #[error("the parcel is incomplete")]
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

impl Parcel {
    /// Seals the parcel.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    pub fn seal(self) -> io::Result<SealedParcel> {
        let Self { blobs, listeners, sockets } = self;
        let (sending, receiving) = pair()?;
        let mut first = MAGIC.to_vec();
        for count in [blobs.len(), listeners.len(), sockets.len()] {
            first.extend_from_slice(&(count as u64).to_be_bytes());
        }
        let memory = store(blobs)?;
        if !send(&sending, &first, &[memory])? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut all = listeners;
        all.extend(sockets);
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
        for carriers in carriers.chunks(AT_ONCE) {
            if !send(&sending, b"c", carriers)? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        Ok(SealedParcel { sending: Some(sending), receiving })
    }
}

impl SealedParcel {
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

    /// Opens the parcel.
    ///
    /// # Errors
    /// Returns an error if it is damaged or incomplete, or the error of the operating system.
    pub fn open(self) -> Result<Parcel, ParcelError> {
        let mut first = [0; FIRST];
        let (len, memory) = receive(&self.receiving, &mut first)?;
        let Some((MAGIC, counts)) = first.split_first_chunk().filter(|_| len == FIRST) else {
            return Err(ParcelError::Foreign);
        };
        let mut counts = counts.as_chunks::<8>().0.iter().map(|count| u64::from_be_bytes(*count));
        let mut next = || counts.next().and_then(|count| usize::try_from(count).ok()).ok_or(ParcelError::Incomplete);
        let (blobs, listeners, sockets) = (next()?, next()?, next()?);
        let memory = memory.into_iter().next().ok_or(ParcelError::Incomplete)?;
        let blobs = load(memory, blobs)?;
        let total = listeners.checked_add(sockets).ok_or(ParcelError::Incomplete)?;
        let (mut all, mut carriers): (Vec<OwnedFd>, _) = (Vec::new(), Vec::new());
        while all.len() < total {
            if carriers.is_empty() {
                carriers = receive(&self.receiving, &mut [0; 1])?.1;
                carriers.reverse();
            }
            let carrier = carriers.pop().ok_or(ParcelError::Incomplete)?;
            loop {
                let received = receive(&carrier, &mut [0; 1]).map(|(_, sockets)| sockets).unwrap_or_default();
                if received.is_empty() {
                    break;
                }
                all.extend(received);
            }
        }
        if all.len() != total {
            return Err(ParcelError::Incomplete);
        }
        let sockets = all.split_off(listeners);
        Ok(Parcel { blobs, listeners: all, sockets })
    }
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sends a message with descriptors. Returns false if the pair is full.
fn send(socket: &OwnedFd, text: &[u8], descriptors: &[OwnedFd]) -> io::Result<bool> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    if !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    match sendmsg(socket, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Receives a message with its descriptors.
fn receive(socket: &OwnedFd, text: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), ParcelError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(text)], &mut control, flags).map_err(io::Error::from)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        // This process may not open that many descriptors.
        return Err(ParcelError::Incomplete);
    }
    Ok((received.bytes, descriptors))
}

/// Writes blobs, each after its length, to an anonymous file.
fn store(blobs: Vec<Vec<u8>>) -> io::Result<OwnedFd> {
    let mut file = io::BufWriter::new(File::from(memfd_create("pushward", MemfdFlags::CLOEXEC)?));
    for blob in blobs {
        file.write_all(&(blob.len() as u64).to_be_bytes())?;
        file.write_all(&blob)?;
    }
    let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
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
        let mut first = MAGIC.to_vec();
        [1_u64, 0, u64::MAX].iter().for_each(|count| first.extend_from_slice(&count.to_be_bytes()));
        assert!(send(&sending, &first, &[store(vec![vec![1]]).unwrap()]).unwrap());
        let incomplete = SealedParcel { sending: Some(sending), receiving };
        assert!(incomplete.open().is_err());
    }
}
