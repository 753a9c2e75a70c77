//! What a replica reads from a registry: hashes that must lead to the signed root, and entries
//! with their envelopes, which must be what was hashed.
//!
//! Reading is done a few requests at a time, checking on all cores. What is on the way is bounded
//! in bytes, whatever the registry serves: bundles of common size are read side by side, a larger
//! one alone, and whatever is slowest sets the pace. The signature of each
//! envelope is verified here, under the key that its entry names; the rules, which look at
//! one statement after the other, find that done and ask only whether it is the right key.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::PublicKey;
use jingwei_proto::leaf::Leaf;
use jingwei_proto::merkle::{self, Edge, leaf_hash};
use jingwei_proto::tile::{self, TileKind, TilePath, TileReader, WIDTH, WantedTiles, bundles};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Misbehaviour, ReplicaError};
use crate::log::Entry;
use crate::source::{MAX_BUNDLE, Source, SourceError};

/// Entries that are checked and stored together: few enough fsyncs for each entry.
const CHUNK: u64 = 4_096;
/// Bytes with which a chunk is full before that.
const FULL: usize = 3 * 1024 * 1024;
/// Bytes that may be on the way from reading to indexing. A single chunk that is larger waits
/// until it is alone.
const ON_THE_WAY: u32 = 16 * 1024 * 1024;
/// Requests under way at once.
const AT_ONCE: usize = 8;
/// A bundle that is larger is read alone: what is read side by side is bounded in bytes too.
const COMMON: usize = 1024 * 1024;

/// A size on the way to the signed one, and the root that the log has there.
pub(super) type Border = (u64, Digest);

/// Whether a log grows within one bundle.
pub(super) fn within_one_bundle(from: u64, to: u64) -> bool {
    to.div_ceil(u64::from(WIDTH)) <= from / u64::from(WIDTH) + 1
}

/// Where each bundle ends on the way from `edge` to the signed checkpoint, by the leaf hashes
/// that the registry shows. The last border is what they lead to, right or wrong.
pub(super) async fn borders(
    source: &Source,
    mut edge: Edge,
    signed: &Checkpoint,
    known: &[Border],
) -> Result<Vec<Border>, ReplicaError> {
    let kind = TileKind::Hash { level: 0 };
    let mut tiles = stream::iter(bundles(kind, edge.size(), signed.size))
        .map(|path| hashes(source, path))
        .buffered(AT_ONCE);
    let mut borders = Vec::new();
    while let Some((first, hashes)) = tiles.try_next().await? {
        let skip = edge.size().saturating_sub(first);
        for hash in hashes.into_iter().skip(usize::try_from(skip).unwrap_or(0)) {
            edge.push(hash);
            let size = edge.size();
            let is_known = known.iter().any(|(known, _)| *known == size);
            if size == signed.size || is_known || size.is_multiple_of(u64::from(WIDTH)) {
                borders.push((size, edge.root()));
            }
        }
    }
    Ok(borders)
}

/// The hashes of a tile, and the place of the first.
async fn hashes(source: &Source, path: TilePath) -> Result<(u64, Vec<Digest>), ReplicaError> {
    let bytes = hash_tile(source, path).await?;
    let hashes = tile::parse_hashes(&bytes, path.width)
        .map_err(|error| Misbehaviour::Unmatched(format!("{path}: {error}")))?;
    Ok((path.index * u64::from(WIDTH), hashes))
}

/// A hash tile, cut to the width that was asked for.
async fn hash_tile(source: &Source, path: TilePath) -> Result<Vec<u8>, SourceError> {
    let (mut bytes, _) = source.tile(&path).await?;
    bytes.truncate(usize::from(path.width) * 32);
    Ok(bytes)
}

/// A log's hashes as its registry shows them, as far as they are needed for one proof.
pub(super) struct Shown {
    size: u64,
    tiles: BTreeMap<TilePath, Vec<u8>>,
}

impl Shown {
    /// What `wanted` asked for.
    async fn fetch(source: &Source, size: u64, wanted: WantedTiles) -> Result<Shown, SourceError> {
        let paths = wanted.paths();
        drop(wanted);
        let tiles = stream::iter(paths)
            .map(|path| async move { Ok::<_, SourceError>((path, hash_tile(source, path).await?)) })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(Shown { size, tiles })
    }

    fn reader(&self) -> TileReader<impl Fn(&TilePath) -> Result<Vec<u8>, &'static str>> {
        TileReader::new(self.size, |path: &TilePath| {
            self.tiles.get(path).cloned().ok_or("it was not asked for")
        })
    }
}

/// The root that the shown log has at an earlier size, and the proof of it; `None` if the
/// hashes do not lead to the signed root, so that they say nothing about it.
pub(super) async fn history(
    source: &Source,
    old: u64,
    signed: &Checkpoint,
) -> Result<Option<(Digest, Vec<Digest>)>, SourceError> {
    let wanted = WantedTiles::new(signed.size);
    let (Ok(_), Ok(_)) = (
        merkle::root(&wanted, old),
        merkle::consistency_proof(&wanted, old, signed.size),
    );
    let shown = Shown::fetch(source, signed.size, wanted).await?;
    let reader = shown.reader();
    let (Ok(root), Ok(path)) = (
        merkle::root(&reader, old),
        merkle::consistency_proof(&reader, old, signed.size),
    ) else {
        return Ok(None);
    };
    let leads = merkle::verify_consistency(old, signed.size, &root, &signed.root, &path);
    Ok(leads.is_ok().then_some((root, path)))
}

/// The proof that the shown log holds the entry.
pub(super) async fn inclusion(
    source: &Source,
    index: u64,
    signed: &Checkpoint,
) -> Result<Option<Vec<Digest>>, SourceError> {
    let wanted = WantedTiles::new(signed.size);
    let Ok(_) = merkle::inclusion_proof(&wanted, index, signed.size);
    let shown = Shown::fetch(source, signed.size, wanted).await?;
    Ok(merkle::inclusion_proof(&shown.reader(), index, signed.size).ok())
}

/// Entries and envelopes up to a border, as they came: a bundle of each, or part of it.
struct Piece {
    range: Range<u64>,
    border: Border,
    leaves: Bundle,
    envelopes: Bundle,
}

type Bundle = (Vec<u8>, u16);

impl Piece {
    fn bytes(&self) -> usize {
        self.leaves.0.len() + self.envelopes.0.len()
    }
}

/// Pieces that are checked and stored together.
pub(super) struct Raw {
    pieces: Vec<Piece>,
    /// Their share of the bytes that may be on the way.
    share: OwnedSemaphorePermit,
}

/// Reads the log of `size` entries from `from` to the last of the borders, none of which lies
/// beyond the end of the next bundle, and hands it on in chunks.
pub(super) async fn chunks(
    source: &Source,
    from: u64,
    borders: Vec<Border>,
    size: u64,
    to_check: mpsc::Sender<Raw>,
) -> Result<(), ReplicaError> {
    let on_the_way = Arc::new(Semaphore::new(ON_THE_WAY as usize));
    let starts = std::iter::once(from).chain(borders.iter().map(|(end, _)| *end));
    let ranges: Vec<_> = starts.zip(borders.iter().copied()).collect();
    let mut pieces = std::pin::pin!(
        stream::iter(ranges)
            .map(|(start, border)| common_piece(source, start..border.0, border, size))
            .buffered(AT_ONCE / 2)
    );
    let mut gathered = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = match piece? {
            Ok(piece) => piece,
            Err((range, border)) => piece_within(MAX_BUNDLE, source, range, border, size).await?,
        };
        gathered.push(piece);
        let last = gathered.last().is_some_and(|piece| piece.border.0 == size);
        if !(last || is_full(&gathered)) {
            continue;
        }
        let pieces = std::mem::take(&mut gathered);
        // Asked for in order, so whoever holds a share can always be waited for.
        let bytes: usize = pieces.iter().map(Piece::bytes).sum();
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(ON_THE_WAY);
        let Ok(share) = on_the_way.clone().acquire_many_owned(permits).await else {
            break;
        };
        if to_check.send(Raw { pieces, share }).await.is_err() {
            // Checking has stopped, and says why itself.
            break;
        }
    }
    Ok(())
}

/// No chunk has more than this and one bundle.
fn is_full(pieces: &[Piece]) -> bool {
    let entries = |piece: &Piece| piece.range.end - piece.range.start;
    pieces.iter().map(entries).sum::<u64>() >= CHUNK
        || pieces.iter().map(Piece::bytes).sum::<usize>() >= FULL
}

/// A piece of common size; of a larger one, what it was to be.
async fn common_piece(
    source: &Source,
    range: Range<u64>,
    border: Border,
    size: u64,
) -> Result<Result<Piece, (Range<u64>, Border)>, SourceError> {
    match piece_within(COMMON, source, range.clone(), border, size).await {
        Err(SourceError::TooLarge { .. }) => Ok(Err((range, border))),
        piece => Ok(Ok(piece?)),
    }
}

async fn piece_within(
    most: usize,
    source: &Source,
    range: Range<u64>,
    border: Border,
    size: u64,
) -> Result<Piece, SourceError> {
    let index = range.start / u64::from(WIDTH);
    let (leaves, envelopes) = tokio::try_join!(
        bundle(source, TileKind::Entries, index, size, most),
        bundle(source, TileKind::Envelopes, index, size, most),
    )?;
    Ok(Piece {
        range,
        border,
        leaves,
        envelopes,
    })
}

/// The envelopes of a range within one bundle of the log of `size` entries, not checked.
pub(super) async fn envelopes(
    source: &Source,
    range: Range<u64>,
    size: u64,
) -> Result<Vec<Vec<u8>>, ReplicaError> {
    let (kind, width) = (TileKind::Envelopes, u64::from(WIDTH));
    let index = range.start / width;
    let (bytes, width_shown) = bundle(source, kind, index, size, MAX_BUNDLE).await?;
    let all = tile::decode_bundle(kind, &bytes, width_shown)
        .map_err(|error| Misbehaviour::Unmatched(error.to_string()))?;
    let inside = (index * width..).zip(all);
    let inside = inside.filter(|(at, _)| range.contains(at));
    Ok(inside.map(|(_, envelope)| envelope.to_vec()).collect())
}

async fn bundle(
    source: &Source,
    kind: TileKind,
    index: u64,
    size: u64,
    most: usize,
) -> Result<Bundle, SourceError> {
    match TilePath::in_log(kind, index, size) {
        Some(path) => source.tile_within(&path, most).await,
        None => Ok((Vec::new(), 0)),
    }
}

/// What is wrong with an entry that the log does hold.
pub(super) enum Doubt {
    /// It has not the form of entries.
    Malformed,
    /// Its signature is not by the key that it names; the statement.
    Forged(Vec<u8>),
    /// What came beside it is not its envelope: nobody's fault for certain.
    Unmatched(String),
}

/// Why a chunk is not taken.
pub(super) enum Refused {
    /// The entries do not lead to the root.
    Root,
    /// They do, and one of them is wrong.
    Entry {
        index: u64,
        leaf: Vec<u8>,
        doubt: Doubt,
    },
    /// The bundles are none.
    Bundle(String),
}

/// Entries that are the log's, each with its own envelope.
pub(super) struct Checked {
    pub entries: Vec<Entry>,
    pub envelopes: Vec<Envelope>,
    /// Given back when they are stored and indexed.
    _share: OwnedSemaphorePermit,
}

/// Checks a chunk that continues `edge` and has to lead to all its borders.
pub(super) fn check(raw: Raw, edge: &mut Edge) -> Result<Checked, Refused> {
    let Raw { pieces, share } = raw;
    let from = edge.size();
    let pairs = pairs(&pieces)?;
    let judged = in_parallel(&pairs);
    let mut borders = pieces.iter().map(|piece| piece.border).peekable();
    for (hash, _) in &judged {
        edge.push(*hash);
        let size = edge.size();
        if let Some((_, root)) = borders.next_if(|(border, _)| *border == size)
            && root != edge.root()
        {
            return Err(Refused::Root);
        }
    }
    if borders.next().is_some() {
        return Err(Refused::Root);
    }
    let mut envelopes = Vec::with_capacity(judged.len());
    for ((index, (leaf, _)), (_, envelope)) in (from..).zip(&pairs).zip(judged) {
        envelopes.push(envelope.map_err(|doubt| Refused::Entry {
            index,
            leaf: leaf.to_vec(),
            doubt,
        })?);
    }
    let entries = pairs
        .into_iter()
        .map(|(leaf, envelope)| Entry {
            leaf: leaf.to_vec(),
            envelope: Some(envelope.to_vec()),
        })
        .collect();
    Ok(Checked {
        entries,
        envelopes,
        _share: share,
    })
}

type Pair<'a> = (&'a [u8], &'a [u8]);
type Judged = (Digest, Result<Envelope, Doubt>);

/// The entries of the pieces, each with what is said to be its envelope.
fn pairs(pieces: &[Piece]) -> Result<Vec<Pair<'_>>, Refused> {
    let broken = |error: tile::TileError| Refused::Bundle(error.to_string());
    let mut pairs = Vec::new();
    for piece in pieces {
        let ((leaves, wide), (envelopes, width)) = (&piece.leaves, &piece.envelopes);
        let leaves = tile::decode_bundle(TileKind::Entries, leaves, *wide).map_err(broken)?;
        let envelopes =
            tile::decode_bundle(TileKind::Envelopes, envelopes, *width).map_err(broken)?;
        let range = &piece.range;
        let first = range.start - range.start % u64::from(WIDTH);
        let both = (first..).zip(leaves.into_iter().zip(envelopes));
        let before = pairs.len() as u64;
        pairs.extend(
            both.filter(|(at, _)| range.contains(at))
                .map(|(_, pair)| pair),
        );
        if pairs.len() as u64 - before != range.end - range.start {
            return Err(Refused::Bundle("it is too short".into()));
        }
    }
    Ok(pairs)
}

/// Judges entries on all cores, keeping their order.
fn in_parallel(pairs: &[Pair<'_>]) -> Vec<Judged> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let share = pairs.len().div_ceil(cores).max(32);
    let mut shares = pairs.chunks(share);
    let own = shares.next().unwrap_or_default();
    thread::scope(|scope| {
        let others: Vec<_> = shares
            .map(|share| scope.spawn(move || judge_all(share)))
            .collect();
        let mut judged = judge_all(own);
        for other in others {
            match other.join() {
                Ok(more) => judged.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        judged
    })
}

fn judge_all(pairs: &[Pair<'_>]) -> Vec<Judged> {
    let mut keys = Keys::default();
    let judged: Vec<_> = pairs
        .iter()
        .map(|(leaf, envelope)| (leaf_hash(leaf), judge(leaf, envelope, &mut keys)))
        .collect();
    let own = judged.iter().filter_map(|(_, judged)| judged.as_ref().ok());
    // A signature that does not hold is for the rules to reject, in its turn.
    Envelope::verify_together(
        &own.map(|(envelope, key)| (envelope, key))
            .collect::<Vec<_>>(),
    );
    judged
        .into_iter()
        .map(|(hash, judged)| (hash, judged.map(|(envelope, _)| envelope)))
        .collect()
}

/// Keys that were read before: few agencies sign many statements.
type Keys = HashMap<[u8; 32], PublicKey>;

/// The envelope that the entry was made from, and its key. Whether that is the right one, and what a
/// false signature means for the state, is for the rules to say.
fn judge(leaf: &[u8], envelope: &[u8], keys: &mut Keys) -> Result<(Envelope, PublicKey), Doubt> {
    let read = Leaf::parse_with(leaf, |raw| {
        if let Some(key) = keys.get(raw) {
            return Some(key.clone());
        }
        let key = PublicKey::from_raw(raw).ok()?;
        keys.insert(*raw, key.clone());
        Some(key)
    })
    .ok_or(Doubt::Malformed)?;
    let envelope =
        Envelope::parse(envelope).map_err(|error| Doubt::Unmatched(error.to_string()))?;
    if !read.is_over(envelope.payload()) {
        return Err(Doubt::Unmatched("it is over another statement".into()));
    }
    if envelope.key() == read.key.id() && *envelope.signature() == read.signature {
        return Ok((envelope, read.key));
    }
    match read.verify(envelope.payload()) {
        Ok(()) => Err(Doubt::Unmatched(
            "its envelope carries another signature".into(),
        )),
        Err(_) => Err(Doubt::Forged(envelope.payload().to_vec())),
    }
}
