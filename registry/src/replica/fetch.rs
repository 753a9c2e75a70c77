//! What a replica reads from a registry: hashes that must lead to the signed root, and entries
//! with their envelopes, which must be what was hashed.
//!
//! Reading is done a few requests at a time, checking on all cores. The signature of each
//! envelope is verified here, under the key that its entry names; the rules, which look at
//! one statement after the other, find that done and ask only whether it is the right key.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::thread;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jingwei_proto::checkpoint::Checkpoint;
use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::PublicKey;
use jingwei_proto::leaf::Leaf;
use jingwei_proto::merkle::{self, Edge, leaf_hash};
use jingwei_proto::tile::{self, TileKind, TilePath, TileReader, WIDTH, WantedTiles, bundles};

use super::{Misbehaviour, ReplicaError};
use crate::log::Entry;
use crate::source::{Source, SourceError};

/// Entries that are checked and stored together: a few megabytes of common statements, whole
/// bundles, and few enough fsyncs for each entry.
pub(super) const CHUNK: u64 = 4_096;
/// Requests under way at once.
const AT_ONCE: usize = 8;

/// A size on the way to the signed one, and the root that the log has there.
pub(super) type Border = (u64, Digest);

/// Where each chunk ends on the way from `edge` to the signed checkpoint, by the leaf hashes
/// that the registry shows. The last border is what they lead to, right or wrong.
pub(super) async fn borders(
    source: &Source,
    mut edge: Edge,
    signed: &Checkpoint,
    known: Option<Border>,
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
            let is_known = known.is_some_and(|(known, _)| known == size);
            if size == signed.size || is_known || size.is_multiple_of(CHUNK) {
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

/// Bundles of entries and of envelopes as they came.
pub(super) struct Raw {
    range: Range<u64>,
    bundles: Vec<(u64, Bundle, Bundle)>,
}

type Bundle = (Vec<u8>, u16);

/// Reads the entries of a range of the log of `size` entries.
pub(super) async fn raw(source: &Source, range: Range<u64>, size: u64) -> Result<Raw, SourceError> {
    let width = u64::from(WIDTH);
    let bundles = stream::iter(range.start / width..range.end.div_ceil(width))
        .map(|index| async move {
            let (leaves, envelopes) = tokio::try_join!(
                bundle(source, TileKind::Entries, index, size),
                bundle(source, TileKind::Envelopes, index, size),
            )?;
            Ok::<_, SourceError>((index, leaves, envelopes))
        })
        .buffered(AT_ONCE / 2)
        .try_collect()
        .await?;
    Ok(Raw { range, bundles })
}

/// The envelopes of a range within one bundle of the log of `size` entries, not checked.
pub(super) async fn envelopes(
    source: &Source,
    range: Range<u64>,
    size: u64,
) -> Result<Vec<Vec<u8>>, ReplicaError> {
    let (kind, width) = (TileKind::Envelopes, u64::from(WIDTH));
    let index = range.start / width;
    let (bytes, width_shown) = bundle(source, kind, index, size).await?;
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
) -> Result<Bundle, SourceError> {
    match TilePath::in_log(kind, index, size) {
        Some(path) => source.tile(&path).await,
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
    pub border: Border,
    pub entries: Vec<Entry>,
    pub envelopes: Vec<Envelope>,
}

/// Checks a chunk that continues `edge` and has to lead to the border.
pub(super) fn check(raw: &Raw, edge: &mut Edge, border: Border) -> Result<Checked, Refused> {
    let pairs = pairs(raw)?;
    let judged = in_parallel(&pairs);
    for (hash, _) in &judged {
        edge.push(*hash);
    }
    if (edge.size(), edge.root()) != border {
        return Err(Refused::Root);
    }
    let mut envelopes = Vec::with_capacity(judged.len());
    for ((index, (leaf, _)), (_, envelope)) in raw.range.clone().zip(&pairs).zip(judged) {
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
        border,
        entries,
        envelopes,
    })
}

type Pair<'a> = (&'a [u8], &'a [u8]);
type Judged = (Digest, Result<Envelope, Doubt>);

/// The entries of the range, each with what is said to be its envelope.
fn pairs(raw: &Raw) -> Result<Vec<Pair<'_>>, Refused> {
    let broken = |error: tile::TileError| Refused::Bundle(error.to_string());
    let mut pairs = Vec::new();
    for (index, (leaves, wide), (envelopes, width)) in &raw.bundles {
        let leaves = tile::decode_bundle(TileKind::Entries, leaves, *wide).map_err(broken)?;
        let envelopes =
            tile::decode_bundle(TileKind::Envelopes, envelopes, *width).map_err(broken)?;
        let first = index * u64::from(WIDTH);
        let both = leaves.into_iter().zip(envelopes);
        let inside = (first..).zip(both).filter(|(at, _)| raw.range.contains(at));
        pairs.extend(inside.map(|(_, pair)| pair));
    }
    if pairs.len() as u64 != raw.range.end - raw.range.start {
        return Err(Refused::Bundle("it is too short".into()));
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
    pairs
        .iter()
        .map(|(leaf, envelope)| (leaf_hash(leaf), judge(leaf, envelope, &mut keys)))
        .collect()
}

/// Keys that were read before: few agencies sign many statements.
type Keys = HashMap<[u8; 32], PublicKey>;

/// Whether the entry was made from this envelope. Whether its key is the right one, and what a
/// false signature means for the state, is for the rules to say.
fn judge(leaf: &[u8], envelope: &[u8], keys: &mut Keys) -> Result<Envelope, Doubt> {
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
        // A signature that does not hold is for the rules to reject, in its turn.
        let _ = envelope.verify(&read.key);
        return Ok(envelope);
    }
    match read.verify(envelope.payload()) {
        Ok(()) => Err(Doubt::Unmatched(
            "its envelope carries another signature".into(),
        )),
        Err(_) => Err(Doubt::Forged(envelope.payload().to_vec())),
    }
}
