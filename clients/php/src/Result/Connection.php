<?php

declare(strict_types=1);

namespace Fdpush\Result;

use Fdpush\Internal\JsonObject;

/** An open WebSocket. */
final class Connection
{
    public function __construct(
        public readonly int $fd,
        /** The uid, or null for an anonymous connection. */
        public readonly ?string $uid,
        /** @var list<string> */
        public readonly array $groups,
        /** The remote end of the socket, `ADDRESS:PORT` or `unix`. */
        public readonly string $peer,
        /** The client's address, also behind a trusted proxy. May be null for `unix`. */
        public readonly ?string $address,
        /** The time of the connect, in milliseconds since 1970. */
        public readonly int $connectedAtMs,
        public readonly int $connectedForMs,
        /** The time since the client last sent bytes. */
        public readonly int $idleForMs,
        public readonly int $messagesIn,
        public readonly int $messagesOut,
        public readonly int $bytesIn,
        public readonly int $bytesOut,
        /** The bytes that wait for the client to read. */
        public readonly int $queuedBytes,
        /** Null if the connection to the server has no TLS. */
        public readonly ?Tls $tls,
    ) {
    }

    /** @internal */
    public static function read(JsonObject $answer): self
    {
        $tls = $answer->objectOrNull('tls');
        return new self(
            $answer->int('fd'),
            $answer->stringOrNull('uid'),
            $answer->strings('groups'),
            $answer->string('peer'),
            $answer->stringOrNull('address'),
            $answer->int('connected_at_ms'),
            $answer->int('connected_for_ms'),
            $answer->int('idle_for_ms'),
            $answer->int('messages_in'),
            $answer->int('messages_out'),
            $answer->int('bytes_in'),
            $answer->int('bytes_out'),
            $answer->int('queued_bytes'),
            $tls === null ? null : Tls::read($tls),
        );
    }
}
