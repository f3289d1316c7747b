//! Media types of the frontend's files, and detection of content hashes in their names.

/// The media type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MediaType {
    /// Value of `Content-Type`.
    pub(super) name: &'static str,
    /// Whether compression pays off. Images and fonts are compressed already.
    pub(super) is_text: bool,
}

/// Returns the media type for the extension of `name`.
pub(super) fn of(name: &str) -> MediaType {
    let file = name.rsplit('/').next().unwrap_or(name);
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
    let (name, is_text) = match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => ("text/html; charset=utf-8", true),
        "css" => ("text/css; charset=utf-8", true),
        "js" | "mjs" => ("text/javascript; charset=utf-8", true),
        "txt" | "md" => ("text/plain; charset=utf-8", true),
        "json" | "map" => ("application/json", true),
        "webmanifest" => ("application/manifest+json", true),
        "xml" => ("application/xml", true),
        "svg" => ("image/svg+xml", true),
        "wasm" => ("application/wasm", true),
        "ttf" => ("font/ttf", true),
        "otf" => ("font/otf", true),
        "ico" => ("image/x-icon", true),
        "woff" => ("font/woff", false),
        "woff2" => ("font/woff2", false),
        "png" => ("image/png", false),
        "jpg" | "jpeg" => ("image/jpeg", false),
        "gif" => ("image/gif", false),
        "webp" => ("image/webp", false),
        "avif" => ("image/avif", false),
        "mp3" => ("audio/mpeg", false),
        "mp4" => ("video/mp4", false),
        "pdf" => ("application/pdf", false),
        _ => ("application/octet-stream", false),
    };
    MediaType { name, is_text }
}

/// Extensions of files that bundlers name by their content.
const HASHED_EXTENSIONS: [&str; 19] = [
    "avif", "css", "gif", "ico", "jpeg", "jpg", "js", "mjs", "mp3", "mp4", "otf", "png", "svg",
    "ttf", "wasm", "webp", "woff", "woff2", "map",
];

/// Directories for hashed files of bundlers: Vite, webpack, Next.js, `SvelteKit`, Nuxt, Astro.
const BUNDLE_FOLDERS: [&str; 6] = ["assets", "static", "_next", "_app", "_nuxt", "_astro"];

/// Minimum length of a hash, in characters: the default of Vite, Rollup, webpack and esbuild is 8
/// or 20.
const MIN_HASH_CHARS: usize = 8;

/// Minimum number of changes between letters and digits in a hexadecimal hash. Words and dates have
/// fewer.
const MIN_HEX_CHANGES: usize = 3;

/// Minimum number of such changes in a hash of capitals, small letters and digits.
const MIN_MIXED_CHANGES: usize = 4;

/// Maximum run of small letters in such a hash.
const MAX_LOWERCASE_RUN: usize = 3;

/// Returns whether `name` has a content hash, as written by bundlers: the last part of the stem,
/// after a `-` or a `.`, has eight or more hexadecimal digits; or, in a bundler's directory, eight
/// letters and digits of both cases (Base64url). Their order must be one that words and numbers do
/// not have, unlike `face2024` or `Section1`. Documents have stable names and never match.
///
/// An undetected hash costs a 304 per load; a false match would hide later versions of a file for a
/// year.
pub(super) fn has_hash(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    let Some((stem, extension)) = file.rsplit_once('.') else { return false };
    if !HASHED_EXTENSIONS.iter().any(|it| extension.eq_ignore_ascii_case(it)) {
        return false;
    }
    // A source map has the name of its script and another extension.
    let stem = [".js", ".mjs", ".css"].iter().find_map(|it| stem.strip_suffix(it)).unwrap_or(stem);
    let last = stem.rsplit_once(['-', '.']).map_or("", |(_, last)| last).as_bytes();
    let is_bundled = name.split('/').rev().skip(1).any(|folder| BUNDLE_FOLDERS.contains(&folder));
    is_hex_hash(last) || (is_bundled && is_mixed_hash(last))
}

fn is_hex_hash(text: &[u8]) -> bool {
    let changes = text.windows(2).filter(|pair| kind(pair[0]) != kind(pair[1])).count();
    let is_one_case =
        !(text.iter().any(u8::is_ascii_uppercase) && text.iter().any(u8::is_ascii_lowercase));
    text.len() >= MIN_HASH_CHARS
        && is_one_case
        && text.iter().all(u8::is_ascii_hexdigit)
        && changes >= MIN_HEX_CHANGES
}

fn is_mixed_hash(text: &[u8]) -> bool {
    let changes = text.windows(2).filter(|pair| kind(pair[0]) != kind(pair[1])).count();
    let words = text.split(|byte| !byte.is_ascii_lowercase()).map(<[u8]>::len);
    let has_inner_digit =
        text.windows(2).any(|pair| pair[0].is_ascii_digit() && !pair[1].is_ascii_digit());
    text.len() == MIN_HASH_CHARS
        && text.iter().all(u8::is_ascii_alphanumeric)
        && text.iter().any(u8::is_ascii_uppercase)
        && text.iter().any(u8::is_ascii_lowercase)
        && has_inner_digit
        && changes >= MIN_MIXED_CHANGES
        && words.max().unwrap_or_default() <= MAX_LOWERCASE_RUN
}

/// Distinguishes digits, capitals and small letters.
fn kind(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => 0,
        b'A'..=b'Z' => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_type_depends_on_the_extension_only() {
        assert_eq!(of("a/app.JS").name, "text/javascript; charset=utf-8");
        assert!(of("index.html").is_text);
        assert!(!of("logo.png").is_text);
        for unknown in ["LICENSE", "a.js/b", "x."] {
            assert_eq!(of(unknown).name, "application/octet-stream", "{unknown}");
        }
    }

    #[test]
    fn hashes_are_recognised_and_words_are_not() {
        for hashed in [
            "assets/index-BX3k9a2Q.js",
            "assets/main.0a1b2c3d.css",
            "chunk-d41d8cd98f00b204e980.mjs",
            "_next/static/index-BX3k9a2Q.js.map",
            "logo.A94A8FE5CCB19BA61C4C.svg",
            "assets/font-Ck4xB9Dq.woff2",
        ] {
            assert!(has_hash(hashed), "{hashed}");
        }
        for plain in [
            "index.html",
            "my-component.js",
            "polyfill.es2020.js",
            "icon-1024x1024.png",
            "report-20240101.json",
            "deadbeef",
            "0a1b2c3d.js",
            "assets-0a1b2c3d/app.js",
            "a-deadbeef.js",
            "guide-Section1.html",
            "assets/guide-Section1.js",
            "assets/guide-BX3k9a2Q.html",
            "guide-BX3k9a2Q.js",
            "report-0a1b2c3d.pdf",
            "data-0a1b2c3d.json",
            "photo-2024feb01.png",
            "wallpaper-face2024.jpg",
            "docs-Win32Api.js",
            "assets/track-Mp3Audio.js",
            "assets/a-MacBook1.png",
        ] {
            assert!(!has_hash(plain), "{plain}");
        }
    }
}
