//! MPEG-TS (ISO/IEC 13818-1, ETSI EN 300 468): service names, descriptors and other text of the
//! tables, private data of the packets' headers, timed ID3 tags. Pictures and sound are not opened.

use super::collect::{Collector, MAX_VALUE, Spot};
use super::input::{Input, Stop, be16};
use super::traces::Field;
use super::{Reader, id3};

/// Tables are repeated several times a second, so that the first pieces of a file hold all that
/// stays the same; what changes on the way is looked for at its end once more.
const FIRST: u64 = 8 << 20;
const LAST: u64 = 2 << 20;
const BLOCK: usize = 1 << 20;
const MAX_PIDS: usize = 64;
const MAX_SECTION: usize = 4096;
/// A timed tag; longer ones are pictures.
const MAX_PES: usize = 256 << 10;
const MAX_PES_HELD: usize = 16;
/// Different sections, private data and tags that are looked at.
const MAX_SEEN: usize = 4096;

const SYNC: u8 = 0x47;
const PAT: u16 = 0;
const SDT: u16 = 0x11;
const NOTHING: u16 = 0x1FFF;
/// Stream types that carry metadata in PES packets: ID3 (Apple), and metadata in general.
const METADATA: u8 = 0x15;

pub(super) struct Mpegts;

/// Length of a packet, and where its sync byte stands in it.
fn packets(head: &[u8]) -> Option<(usize, usize)> {
    [(188, 0), (192, 4), (204, 0)]
        .into_iter()
        .find(|(len, at)| (0..4).all(|n| head.get(at + n * len) == Some(&SYNC)))
}

impl Reader for Mpegts {
    fn name(&self) -> &'static str {
        "mpegts"
    }

    fn recognises(&self, head: &[u8]) -> bool {
        packets(head).is_some()
    }

    fn read(&self, input: &mut Input<'_>, out: &mut Collector) -> Result<(), Stop> {
        let head = input.read(0, super::HEAD)?;
        let Some((len, sync)) = packets(&head) else { return Ok(()) };
        let mut tables =
            Tables { pids: vec![(PAT, Kind::Pat), (SDT, Kind::Sdt)], ..Tables::default() };
        let end = input.len();
        let first = FIRST.min(end);
        tables.stretch(input, (0, first), (len, sync), out)?;
        let start = end.saturating_sub(LAST).max(first);
        // At the start of a packet.
        let start = start.next_multiple_of(len as u64);
        if start < end {
            tables.stretch(input, (start, end), (len, sync), out)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pat,
    Pmt,
    Sdt,
    Tag,
}

#[derive(Default)]
struct Tables {
    pids: Vec<(u16, Kind)>,
    /// What has begun on a PID and where, and is not complete.
    open: Vec<(u16, u64, Vec<u8>)>,
    /// Checksums of what was looked at, since all of it is repeated.
    seen: Vec<u32>,
}

impl Tables {
    fn stretch(
        &mut self,
        input: &mut Input<'_>,
        (start, end): (u64, u64),
        (len, sync): (usize, usize),
        out: &mut Collector,
    ) -> Result<(), Stop> {
        self.open.clear();
        let block = BLOCK / len * len;
        let mut at = start;
        while at < end {
            let bytes = input.span(at, end, block)?;
            for (index, packet) in bytes.chunks_exact(len).enumerate() {
                let packet = packet.get(sync..sync + 188).unwrap_or_default();
                self.packet(packet, at + (index * len + sync) as u64, out);
            }
            if bytes.len() < block {
                break;
            }
            at += bytes.len() as u64;
        }
        // A tag is complete when the next one begins, and none follows the last.
        for (pid, spot, bytes) in std::mem::take(&mut self.open) {
            if self.pids.contains(&(pid, Kind::Tag)) {
                self.tag(&bytes, spot, out);
            }
        }
        Ok(())
    }

    fn packet(&mut self, packet: &[u8], at: u64, out: &mut Collector) {
        let (Some(&SYNC), Some(word), Some(control)) =
            (packet.first(), be16(packet, 1), packet.get(3))
        else {
            return;
        };
        let (begins, pid) = (word & 0x4000 != 0, word & 0x1FFF);
        // Damaged or scrambled.
        if word & 0x8000 != 0 || control & 0xC0 != 0 || pid == NOTHING {
            return;
        }
        let mut body = 4;
        if control & 0x20 != 0 {
            let size = usize::from(packet.get(4).copied().unwrap_or(0));
            self.adaptation(packet.get(5..5 + size).unwrap_or_default(), at, out);
            body = 5 + size;
        }
        let known = self.pids.iter().find(|(known, _)| *known == pid).map(|(_, kind)| *kind);
        let Some(kind) = known.filter(|_| control & 0x10 != 0) else { return };
        let payload = packet.get(body..).unwrap_or_default();
        match kind {
            Kind::Tag => self.timed(pid, begins, payload, at, out),
            _ => self.section(pid, kind, begins, payload, at, out),
        }
    }

    /// Whether these bytes were not looked at before.
    fn first_time(&mut self, bytes: &[u8], out: &mut Collector) -> bool {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        if self.seen.contains(&crc.sum()) {
            return false;
        }
        if self.seen.len() >= MAX_SEEN {
            out.note(format!(
                "more than {MAX_SEEN} different tables and tags, the rest was not read"
            ));
            return false;
        }
        self.seen.push(crc.sum());
        true
    }

    /// Private data in a packet's header.
    fn adaptation(&mut self, field: &[u8], at: u64, out: &mut Collector) {
        let Some(flags) = field.first().filter(|flags| *flags & 2 != 0) else { return };
        // Clocks of 6 bytes each and a countdown stand before it.
        let skip = [(0x10, 6), (0x08, 6), (0x04, 1)];
        let skip: usize = skip.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, n)| n).sum();
        let Some(size) = field.get(1 + skip) else { return };
        let data = field.get(2 + skip..).unwrap_or_default();
        let data = data.get(..data.len().min(usize::from(*size))).unwrap_or_default();
        // Most is about the coding of pictures, different in each packet, and of no concern here.
        let speaks = [&b"AIGC"[..], b"\"ProduceID\""];
        let speaks = speaks.iter().any(|word| memchr::memmem::find(data, word).is_some());
        if speaks && self.first_time(data, out) {
            let spot = Spot::new("private data", at);
            out.text(Field::Tag, "private data", &String::from_utf8_lossy(data), &spot);
        }
    }

    fn section(
        &mut self,
        pid: u16,
        kind: Kind,
        begins: bool,
        payload: &[u8],
        at: u64,
        out: &mut Collector,
    ) {
        let mut rest = payload;
        if begins {
            // Where in this packet the section begins; before it the last one ends.
            let Some((skip, after)) = payload.split_first() else { return };
            let Some((tail, start)) = after.split_at_checked(usize::from(*skip)) else { return };
            self.continued(pid, kind, tail, out);
            self.open.retain(|(open, ..)| *open != pid);
            rest = start;
            // Sections may follow each other in one packet, up to the filling.
            while rest.first().is_some_and(|table| *table != 0xFF) {
                let size = 3 + usize::from(be16(rest, 1).unwrap_or(0) & 0x0FFF);
                let Some((section, next)) = rest.split_at_checked(size) else {
                    self.open.push((pid, at, rest.to_vec()));
                    return;
                };
                self.complete(kind, section, at, out);
                rest = next;
            }
            return;
        }
        self.continued(pid, kind, rest, out);
    }

    fn continued(&mut self, pid: u16, kind: Kind, more: &[u8], out: &mut Collector) {
        let Some(index) = self.open.iter().position(|(open, ..)| *open == pid) else { return };
        let Some((_, at, bytes)) = self.open.get_mut(index) else { return };
        bytes.extend_from_slice(more);
        let size = 3 + usize::from(be16(bytes, 1).unwrap_or(0) & 0x0FFF);
        if bytes.len() >= size || bytes.len() > MAX_SECTION {
            bytes.truncate(size);
            let (at, bytes) = (*at, std::mem::take(bytes));
            self.open.swap_remove(index);
            self.complete(kind, &bytes, at, out);
        }
    }

    fn complete(&mut self, kind: Kind, section: &[u8], at: u64, out: &mut Collector) {
        if !self.first_time(section, out) {
            return;
        }
        // Without the checksum at its end.
        let body = section.get(8..section.len().saturating_sub(4)).unwrap_or_default();
        match (kind, section.first()) {
            (Kind::Pat, Some(0)) => {
                for entry in body.chunks_exact(4) {
                    let (program, pid) = (be16(entry, 0), be16(entry, 2).unwrap_or(0) & 0x1FFF);
                    if program != Some(0) {
                        self.follow(pid, Kind::Pmt);
                    }
                }
            }
            (Kind::Pmt, Some(2)) => {
                let info = usize::from(be16(body, 2).unwrap_or(0) & 0x0FFF);
                descriptors(body.get(4..4 + info).unwrap_or_default(), "PMT", at, out);
                let mut streams = body.get(4 + info..).unwrap_or_default();
                while let (Some(kind), Some(pid), Some(size)) =
                    (streams.first(), be16(streams, 1), be16(streams, 3))
                {
                    if *kind == METADATA {
                        self.follow(pid & 0x1FFF, Kind::Tag);
                    }
                    let end = 5 + usize::from(size & 0x0FFF);
                    descriptors(streams.get(5..end).unwrap_or_default(), "PMT.stream", at, out);
                    streams = streams.get(end..).unwrap_or_default();
                }
            }
            (Kind::Sdt, Some(0x42 | 0x46)) => {
                let mut services = body.get(3..).unwrap_or_default();
                while let Some(size) = be16(services, 3) {
                    let end = 5 + usize::from(size & 0x0FFF);
                    descriptors(services.get(5..end).unwrap_or_default(), "SDT", at, out);
                    services = services.get(end..).unwrap_or_default();
                }
            }
            _ => {}
        }
    }

    fn follow(&mut self, pid: u16, kind: Kind) {
        if self.pids.len() < MAX_PIDS && !self.pids.iter().any(|(known, _)| *known == pid) {
            self.pids.push((pid, kind));
        }
    }

    /// Packets of a stream of ID3 tags.
    fn timed(&mut self, pid: u16, begins: bool, payload: &[u8], at: u64, out: &mut Collector) {
        let index = self.open.iter().position(|(open, ..)| *open == pid);
        if begins {
            if let Some((_, spot, bytes)) = index.map(|index| self.open.swap_remove(index)) {
                self.tag(&bytes, spot, out);
            }
            if self.open.len() < MAX_PES_HELD {
                self.open.push((pid, at, payload.to_vec()));
            }
        } else if let Some((.., bytes)) = index.and_then(|index| self.open.get_mut(index))
            && bytes.len() < MAX_PES
        {
            bytes.extend_from_slice(payload);
        }
    }

    fn tag(&mut self, pes: &[u8], at: u64, out: &mut Collector) {
        let header = usize::from(pes.get(8).copied().unwrap_or(0));
        let tag = pes.get(9 + header..).unwrap_or_default();
        if pes.starts_with(&[0, 0, 1]) && self.first_time(tag, out) {
            id3::in_memory(tag, &Spot::new("timed ID3", at), out);
        }
    }
}

/// Text in descriptors: the names of a service, and whatever else may hold a label.
fn descriptors(mut bytes: &[u8], path: &str, at: u64, out: &mut Collector) {
    while let (Some(tag), Some(size)) = (bytes.first(), bytes.get(1)) {
        let end = (2 + usize::from(*size)).min(bytes.len());
        let body = bytes.get(2..end).unwrap_or_default();
        bytes = bytes.get(end..).unwrap_or_default();
        if *tag == 0x48 {
            // A type, then provider and name, each with its length.
            let text = |from: usize| {
                let size = usize::from(*body.get(from)?);
                body.get(from + 1..from + 1 + size)
            };
            let provider = text(1);
            let name = provider.and_then(|provider| text(2 + provider.len()));
            for (key, value) in [("service_provider", provider), ("service_name", name)] {
                let value = String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
                let spot = Spot::new(format!("{path}[{key}]"), at);
                out.text(Field::Tag, key, &value, &spot);
            }
        } else if body.len() >= 8 {
            let spot = Spot::new(format!("{path}.descriptor({tag:#04x})"), at);
            let value =
                String::from_utf8_lossy(body.get(..body.len().min(MAX_VALUE)).unwrap_or_default());
            out.text(Field::Tag, "descriptor", &value, &spot);
        }
    }
}
