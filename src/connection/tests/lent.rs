//! Messages that are lent to the handler where they lie in the input.

use super::*;

#[test]
fn what_came_is_lent_not_copied() {
    let mut rig = Rig::open(Limits::default());
    let mut bytes = frame(true, Opcode::Text, b"lent");
    let mut input = &mut bytes[..];
    let event = rig.connection.handle_bytes(&mut input, &mut rig.env);
    assert!(matches!(event, Some(Event::Text(Cow::Borrowed("lent")))));
}

#[test]
fn only_a_whole_message_at_the_front_is_taken() {
    let limits = Limits { message_bytes_max: 8, ..Limits::default() };
    let mut rig = Rig::open(limits);
    let taken = |rig: &mut Rig, bytes: &[u8]| {
        let (mut bytes, before) = (bytes.to_vec(), bytes);
        let mut input = &mut bytes[..];
        let message = rig.connection.take_message(&mut input, &mut rig.env).map(|message| message.map(|m| m.len()));
        let left = input.len();
        // Where nothing is taken, nothing is touched.
        assert!(message != Ok(None) || bytes == before, "{before:?} became {bytes:?}");
        (message, left)
    };
    for opcode in [Opcode::Text, Opcode::Binary] {
        let two = [frame(true, opcode, b"first"), frame(true, opcode, b"2nd")].concat();
        assert_eq!(taken(&mut rig, &two), (Ok(Some(5)), 9));
        for cut in 0..9 {
            assert_eq!(taken(&mut rig, &two[..cut]), (Ok(None), cut));
        }
        // Others say what these are.
        let (part, large) = (frame(false, opcode, b"part"), frame(true, opcode, b"too large"));
        for other in [part, large, frame(true, Opcode::Ping, b"ping"), b"\xf1\x80\0\0\0\0".to_vec()] {
            assert_eq!(taken(&mut rig, &other), (Ok(None), other.len()));
        }
    }
    assert_eq!(rig.connection.traffic().messages_in, 2);
    assert_eq!(taken(&mut rig, b"\x81\x01\0"), (Err(ProtocolError::Unmasked), 3));
    assert_eq!(taken(&mut rig, &frame(true, Opcode::Text, b"\xff")), (Err(ProtocolError::TextNotUtf8), 0));

    // In the middle of a message, what looks like one is the decoder's to judge.
    rig.feed(&frame(false, Opcode::Text, b"begun"));
    let text = frame(true, Opcode::Text, b"text");
    assert_eq!(taken(&mut rig, &text), (Ok(None), text.len()));
    assert!(rig.feed(&text)[0].contains("1002"), "the message was unfinished");
    assert_eq!(taken(&mut rig, &text), (Ok(None), text.len()), "nobody takes anything any more");
}
