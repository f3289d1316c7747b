//! Compression, as a client takes it (RFC 9110, section 12.5.3).

use std::io::{self, Write as _};

use flate2::{Compression, write::GzEncoder};
use hyper::{HeaderMap, header};

/// Hardly larger than with the best of Brotli's levels, in a tenth of its time.
const BROTLI_QUALITY: u32 = 9;

/// As far as Brotli looks back, in bits of bytes.
const BROTLI_WINDOW: u32 = 22;

/// A way to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Brotli,
    Gzip,
}

impl Encoding {
    /// All there are, the better first.
    pub(super) const ALL: [Self; 2] = [Self::Brotli, Self::Gzip];

    /// Its name in HTTP.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// `content`, compressed.
    pub(super) fn compress(self, content: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Brotli => {
                let mut writer =
                    brotli::CompressorWriter::new(Vec::new(), 4096, BROTLI_QUALITY, BROTLI_WINDOW);
                writer.write_all(content)?;
                Ok(writer.into_inner())
            }
            Self::Gzip => {
                let mut writer = GzEncoder::new(Vec::new(), Compression::best());
                writer.write_all(content)?;
                writer.finish()
            }
        }
    }
}

/// What the client would rather have than the plain bytes: the one of the highest weight, the better of
/// two equal ones. None where it says nothing, or prefers the plain bytes.
pub(super) fn preferred(headers: &HeaderMap) -> Option<Encoding> {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter();
    let lines: Vec<&str> = lines.map(|line| line.to_str().unwrap_or_default()).collect();
    let items: Vec<(&str, u16)> =
        lines.iter().flat_map(|line| line.split(',')).filter_map(weighed).collect();
    let weight = |wanted: &str| {
        let named = items.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        named.or_else(|| items.iter().find(|(name, _)| *name == "*")).map(|(_, weight)| *weight)
    };
    let mut best = None;
    for encoding in Encoding::ALL {
        let weight = weight(encoding.name()).unwrap_or(0);
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((encoding, weight));
        }
    }
    // What isn't named is acceptable, and no more than that.
    let plain = items.iter().find(|(name, _)| name.eq_ignore_ascii_case("identity"));
    let plain = plain.map_or(0, |(_, weight)| *weight);
    best.filter(|(_, weight)| *weight >= plain).map(|(encoding, _)| encoding)
}

/// An element's name and its weight, in thousandths; none if it is not well-formed.
fn weighed(item: &str) -> Option<(&str, u16)> {
    let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
    let weight = match parameters.trim() {
        "" => 1000,
        parameter => {
            let value = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
            thousandths(value)?
        }
    };
    Some((name.trim(), weight))
}

/// `1`, `0.5`, `0.125`: at most three decimals, at most 1.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(whole, "0" | "1")
        || decimals.len() > 3
        || !decimals.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let decimals: u16 = format!("{decimals:0<3}").parse().ok()?;
    let value = if whole == "1" { 1000 + decimals } else { decimals };
    (value <= 1000).then_some(value)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn chosen(value: &str) -> Option<Encoding> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
        preferred(&headers)
    }

    #[test]
    fn the_heaviest_is_chosen_and_of_two_equal_ones_the_better() {
        use Encoding::{Brotli, Gzip};
        for (value, wanted) in [
            ("gzip, deflate, br, zstd", Some(Brotli)),
            ("gzip", Some(Gzip)),
            ("GZIP", Some(Gzip)),
            ("br;q=0.5, gzip;q=0.9", Some(Gzip)),
            ("br;q=0, gzip", Some(Gzip)),
            ("br;q=0, *", Some(Gzip)),
            ("*", Some(Brotli)),
            ("*;q=0", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.2, gzip;q=0.5", Some(Gzip)),
            ("deflate", None),
            ("", None),
            ("br;q=1.1", None),
            ("br;q=high, gzip; q=0.001", Some(Gzip)),
        ] {
            assert_eq!(chosen(value), wanted, "{value}");
        }
        assert_eq!(preferred(&HeaderMap::new()), None);
    }

    #[test]
    fn several_lines_are_one_list() {
        let mut headers = HeaderMap::new();
        headers.append(header::ACCEPT_ENCODING, "gzip;q=0.5".parse().unwrap());
        headers.append(header::ACCEPT_ENCODING, "br".parse().unwrap());
        assert_eq!(preferred(&headers), Some(Encoding::Brotli));
    }

    #[test]
    fn what_was_compressed_is_read_back() {
        let content = b"to be or not to be, ".repeat(500);
        let small = Encoding::Brotli.compress(&content).unwrap();
        let mut back = Vec::new();
        brotli::Decompressor::new(&small[..], 4096).read_to_end(&mut back).unwrap();
        assert!(back == content && small.len() < 100);
        let small = Encoding::Gzip.compress(&content).unwrap();
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&small[..]).read_to_end(&mut back).unwrap();
        assert!(back == content && small.len() < 200);
    }
}
