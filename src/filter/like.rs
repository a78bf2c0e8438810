//! `like` and `ilike` patterns, compiled.
//!
//! Must not know: columns, SQL. Invariant: matching costs time in proportion to the text, whatever the
//! pattern: whole pieces are searched in linear time and nothing is ever tried twice.

/// Longest piece between two `%` that mixes letters and `_`, in characters. Such a piece is searched
/// with one machine word, a bit a character; longer ones would cost a pass over the text for every 64.
/// Pieces without `_`, and those before the first or after the last `%`, have no such bound.
pub(super) const MAX_MIXED_PIECE: usize = 64;

/// Why a pattern was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatternError {
    /// Ends in an escape with nothing to escape; Postgres refuses it too, but only when it runs into it.
    TrailingEscape,
    /// A piece longer than [`MAX_MIXED_PIECE`].
    Mixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Many,
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    fold: bool,
    canonical: Box<str>,
    first: Anchored,
    /// With at least one `%`: the floating pieces, and what the text must end in.
    rest: Option<(Box<[Floating]>, Anchored)>,
}

impl Pattern {
    /// Reads a pattern: `%` (or its alias `*`) any text, `_` one character, `\` before a character takes
    /// it literally. With `fold`, ASCII letters match in either case.
    pub(super) fn parse(text: &str, fold: bool) -> Result<Self, PatternError> {
        let tokens = normal_form(read(text, fold)?);
        let mut pieces: Vec<&[Token]> = tokens.split(|t| *t == Token::Many).collect();
        let last = if pieces.len() > 1 { pieces.pop() } else { None };
        let first = Anchored(pieces.first().copied().unwrap_or_default().into());
        let rest = match last {
            None => None,
            Some(last) => {
                let floating =
                    pieces.iter().skip(1).map(|piece| Floating::new(piece)).collect::<Result<Box<[_]>, _>>()?;
                Some((floating, Anchored(last.into())))
            }
        };
        Ok(Self { fold, canonical: write(&tokens).into(), first, rest })
    }

    /// True for `ilike`.
    pub(super) fn folds(&self) -> bool {
        self.fold
    }

    /// One text for all spellings, in a syntax both [`Pattern::parse`] and Postgres read.
    pub(super) fn canonical(&self) -> &str {
        &self.canonical
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        if self.fold && text.bytes().any(|b| b.is_ascii_uppercase()) {
            self.matches_folded(&text.to_ascii_lowercase())
        } else {
            self.matches_folded(text)
        }
    }

    fn matches_folded(&self, text: &str) -> bool {
        let Some(mut text) = self.first.after(text) else { return false };
        let Some((floating, last)) = &self.rest else { return text.is_empty() };
        for piece in floating {
            match piece.after_first_match(text) {
                Some(rest) => text = rest,
                None => return false,
            }
        }
        last.ends(text)
    }
}

fn read(text: &str, fold: bool) -> Result<Vec<Token>, PatternError> {
    let mut tokens = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let token = match c {
            '%' | '*' => Token::Many,
            '_' => Token::One,
            '\\' => Token::Char(chars.next().ok_or(PatternError::TrailingEscape)?),
            c => Token::Char(c),
        };
        tokens.push(match token {
            Token::Char(c) if fold => Token::Char(c.to_ascii_lowercase()),
            token => token,
        });
    }
    Ok(tokens)
}

/// In a run of wildcards only the number of `_` and the presence of a `%` matter: `_` first, one `%` last.
/// So a floating piece always starts with a character.
fn normal_form(tokens: Vec<Token>) -> Vec<Token> {
    let mut out = Vec::with_capacity(tokens.len());
    let mut many = false;
    for token in tokens {
        match token {
            Token::Many => many = true,
            Token::One => out.push(Token::One),
            Token::Char(_) => {
                if std::mem::take(&mut many) {
                    out.push(Token::Many);
                }
                out.push(token);
            }
        }
    }
    if many {
        out.push(Token::Many);
    }
    out
}

fn write(tokens: &[Token]) -> String {
    let mut out = String::new();
    for token in tokens {
        match token {
            Token::Many => out.push('%'),
            Token::One => out.push('_'),
            Token::Char(c) => {
                if matches!(c, '%' | '_' | '*' | '\\') {
                    out.push('\\');
                }
                out.push(*c);
            }
        }
    }
    out
}

/// A piece with a fixed place: at the start or at the end of the text.
#[derive(Clone, Debug)]
struct Anchored(Box<[Token]>);

impl Anchored {
    fn after<'t>(&self, text: &'t str) -> Option<&'t str> {
        let mut chars = text.chars();
        for token in &self.0 {
            let c = chars.next()?;
            if *token != Token::One && *token != Token::Char(c) {
                return None;
            }
        }
        Some(chars.as_str())
    }

    fn ends(&self, text: &str) -> bool {
        let mut chars = text.chars();
        self.0.iter().rev().all(|token| match (chars.next_back(), token) {
            (None, _) => false,
            (Some(_), Token::One) => true,
            (Some(c), token) => *token == Token::Char(c),
        })
    }
}

/// A piece between two `%`. Taking its first match is always right: what follows has the most room then.
#[derive(Clone, Debug)]
enum Floating {
    /// Letters, then so many of any character.
    Plain { letters: Box<str>, trailing: usize },
    /// Letters and `_` mixed: bit `i` of a mask is set where the character may stand at place `i`.
    Mixed { masks: Box<[(char, u64)]>, any: u64, accept: u64 },
}

impl Floating {
    fn new(tokens: &[Token]) -> Result<Self, PatternError> {
        let trailing = tokens.iter().rev().take_while(|t| **t == Token::One).count();
        let core = &tokens[..tokens.len() - trailing];
        if !core.contains(&Token::One) {
            let letters: String =
                core.iter().filter_map(|t| if let Token::Char(c) = t { Some(*c) } else { None }).collect();
            return Ok(Self::Plain { letters: letters.into(), trailing });
        }
        if tokens.len() > MAX_MIXED_PIECE {
            return Err(PatternError::Mixed);
        }
        let mut any = 0;
        let mut masks: Vec<(char, u64)> = Vec::new();
        for (place, token) in tokens.iter().enumerate() {
            let bit = 1_u64 << place;
            match token {
                Token::Char(c) => match masks.iter_mut().find(|(known, _)| known == c) {
                    Some((_, mask)) => *mask |= bit,
                    None => masks.push((*c, bit)),
                },
                _ => any |= bit,
            }
        }
        masks.sort_unstable();
        Ok(Self::Mixed { masks: masks.into(), any, accept: 1 << (tokens.len() - 1) })
    }

    /// What follows the first match.
    fn after_first_match<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Plain { letters, trailing } => {
                let start = text.find(&**letters)? + letters.len();
                let mut chars = text[start..].chars();
                for _ in 0..*trailing {
                    chars.next()?;
                }
                Some(chars.as_str())
            }
            Self::Mixed { masks, any, accept } => {
                let mut chars = text.chars();
                let mut state = 0_u64;
                while let Some(c) = chars.next() {
                    let mask = masks.binary_search_by_key(&c, |(known, _)| *known).map_or(0, |at| masks[at].1);
                    state = (state << 1 | 1) & (mask | any);
                    if state & accept != 0 {
                        return Some(chars.as_str());
                    }
                }
                None
            }
        }
    }
}
