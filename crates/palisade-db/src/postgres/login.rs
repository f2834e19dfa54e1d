//! What a server may send until the driver has logged in over a connection without TLS.

/// The lowest number of rounds of SCRAM (RFC 7677, section 4). With fewer, a false server could try passwords out.
const FEWEST_ROUNDS: u32 = 4096;

/// The highest number of rounds. A false server could keep this process busy with more.
const MOST_ROUNDS: u32 = 1_000_000;

/// The authentication requests of SCRAM, in order: mechanisms, continuation, end, success.
const SCRAM: [u32; 4] = [10, 11, 12, 0];

/// How far the server has authenticated the client, and itself (PostgreSQL manual, section 55.2.1).
///
/// SECURITY: the driver follows every authentication request until the server is ready for a query, even one that comes
/// after success: it would send the password itself, or its MD5 digest. It follows none afterwards (test:
/// no_request_follows_the_exchange).
#[derive(Default)]
pub(super) struct Login {
    steps: usize,
    is_ready: bool,
}

impl Login {
    /// Returns whether the driver has logged in, and takes no more authentication requests.
    pub(super) fn is_done(&self) -> bool {
        self.is_ready
    }

    /// Returns whether the driver may see a message of the server.
    pub(super) fn allows(&mut self, message: &[u8]) -> bool {
        let is_accepted = self.steps == SCRAM.len();
        match message.first() {
            // an error, a notice, and the offer of another protocol version
            Some(b'E' | b'N' | b'v') => true,
            Some(b'R') => {
                let expected = SCRAM.get(self.steps).copied();
                self.steps += 1;
                expected.is_some_and(|expected| is_request(message, expected))
            }
            // a parameter, and the key for cancelling
            Some(b'S' | b'K') => is_accepted,
            Some(b'Z') => {
                self.is_ready = is_accepted;
                is_accepted
            }
            _ => false,
        }
    }
}

/// Returns whether a message is the authentication request `expected`, and well formed.
fn is_request(message: &[u8], expected: u32) -> bool {
    let body = message.get(5..).unwrap_or_default();
    let Some((request, rest)) = body.split_first_chunk() else { return false };
    let text = std::str::from_utf8(rest).unwrap_or_default();
    u32::from_be_bytes(*request) == expected
        && match expected {
            11 => is_challenge(text),
            12 => is_proof(text),
            _ => true,
        }
}

/// Returns whether the text is the server's first message of SCRAM, with an acceptable number of rounds:
/// `r=…,s=…,i=…` and nothing else.
///
/// SECURITY: the driver reads these messages leniently. Of several numbers it takes the last one, it takes 4096 for one
/// that it can't read, and an item without a value is a panic (test: only_the_exact_form_of_scram_is_passed_on).
fn is_challenge(text: &str) -> bool {
    let mut items = text.split(',');
    let mut item = |name| items.next().and_then(|item| item.strip_prefix(name)).unwrap_or_default();
    let (nonce, salt, rounds) = (item("r="), item("s="), item("i="));
    let is_canonical = |number: &u32| number.to_string() == rounds;
    let number = rounds.parse::<u32>().ok().filter(is_canonical);
    let is_accepted = number.is_some_and(|rounds| (FEWEST_ROUNDS..=MOST_ROUNDS).contains(&rounds));
    is_accepted && !nonce.is_empty() && !salt.is_empty() && items.next().is_none()
}

/// Returns whether the text is the server's last message of SCRAM: `v=…` and nothing else.
fn is_proof(text: &str) -> bool {
    text.strip_prefix("v=").is_some_and(|proof| !proof.is_empty() && !proof.contains(','))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(number: u32, text: &str) -> Vec<u8> {
        let length = u32::try_from(8 + text.len()).unwrap();
        [b"R", &length.to_be_bytes()[..], &number.to_be_bytes()[..], text.as_bytes()].concat()
    }

    fn exchange() -> [Vec<u8>; 4] {
        [
            request(10, "SCRAM-SHA-256\0\0"),
            request(11, "r=x,s=y,i=4096"),
            request(12, "v=z"),
            request(0, ""),
        ]
    }

    const PARAMETER: &[u8] = b"S\0\0\0\x08a\0b\0";
    const KEY: &[u8] = b"K\0\0\0\x0c12345678";
    const READY: &[u8] = b"Z\0\0\0\x05I";

    /// Returns whether the message is allowed after so many steps of the exchange.
    fn allowed(steps: usize, message: &[u8]) -> bool {
        let mut login = Login::default();
        assert!(exchange().iter().take(steps).all(|message| login.allows(message)));
        login.allows(message)
    }

    #[test]
    fn only_a_whole_scram_exchange_is_passed_on() {
        // success at once, the password itself, its MD5, GSSAPI, a skipped step, a repeated one, a cut one
        for (steps, wrong) in [
            (0, request(0, "")),
            (0, request(3, "")),
            (0, request(5, "salt")),
            (0, request(7, "")),
            (0, request(11, "r=x,s=y,i=4096")),
            (1, request(10, "SCRAM-SHA-256\0\0")),
            (1, request(0, "")),
            (2, request(0, "")),
            (3, request(3, "")),
            (0, b"R\0\0\0\x04".to_vec()),
            (0, Vec::new()),
        ] {
            assert!(!allowed(steps, &wrong), "{steps} {wrong:?}");
        }
        for steps in 0..4 {
            for early in [PARAMETER, KEY, READY, b"D\0\0\0\x04"] {
                assert!(!allowed(steps, early), "{steps} {early:?}");
            }
            assert!(allowed(steps, b"N\0\0\0\x05\0"));
        }
    }

    #[test]
    fn no_request_follows_the_exchange() {
        let mut login = Login::default();
        for message in exchange().iter().map(Vec::as_slice).chain([PARAMETER, KEY, READY]) {
            assert!(!login.is_done() && login.allows(message), "{message:?}");
        }
        assert!(login.is_done());
        for number in [0, 3, 5, 7, 10, 11, 12] {
            let again = request(number, "salt");
            assert!(!allowed(4, &again), "{number}");
            let mut login = Login::default();
            for message in exchange().iter().map(Vec::as_slice).chain([PARAMETER, KEY]) {
                assert!(login.allows(message));
            }
            assert!(!login.allows(&again) && !login.is_done(), "{number}");
        }
    }

    #[test]
    fn only_the_exact_form_of_scram_is_passed_on() {
        for rounds in ["4096", "10000", "1000000"] {
            assert!(allowed(1, &request(11, &format!("r=x+/=,s=eQ==,i={rounds}"))), "{rounds}");
        }
        for rounds in [
            "",
            "0",
            "1",
            "4095",
            "1000001",
            "4294967296",
            "04096",
            "+4096",
            "4096 ",
            "4096x",
            "-1",
        ] {
            assert!(!allowed(1, &request(11, &format!("r=x,s=y,i={rounds}"))), "{rounds}");
        }
        for wrong in [
            "",
            "r=x,s=y",
            "r=x,s=y,i=4096,",
            "r=x,s=y,i=4096,i=1",
            "r=x,s=y,i=4096,i:1",
            "r=x,s=y,i=4096,x=1",
            "i=1,r=x,s=y,i=4096",
            "r=x,i=4096,s=y",
            "s=y,r=x,i=4096",
            "r=,s=y,i=4096",
            "r=x,s=,i=4096",
            "r=x,,s=y,i=4096",
            "r=x,s=y,i:4096",
            "m=x,r=x,s=y,i=4096",
            " r=x,s=y,i=4096",
        ] {
            assert!(!allowed(1, &request(11, wrong)), "{wrong}");
        }
        for wrong in ["", "v", "v=", "v=z,", "v=z,v=y", "v=z,v", "x=z", ",v=z", "e=other-error"] {
            assert!(!allowed(2, &request(12, wrong)), "{wrong}");
        }
        let mut not_text = request(11, "r=x,s=y,i=4096");
        not_text[11] = 0xff;
        assert!(!allowed(1, &not_text));
    }
}
