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
        /** The remote address of the socket: `ADDRESS:PORT` or `unix`. */
        public readonly string $peer,
        /** The address of the client, not of a trusted proxy. Null is possible if `peer` is `unix`. */
        public readonly ?string $address,
        /** The time of the connect, in milliseconds since 1970. */
        public readonly int $connectedAtMs,
        public readonly int $connectedForMs,
        /** The time since the client last sent bytes, in milliseconds. */
        public readonly int $idleForMs,
        public readonly int $messagesIn,
        public readonly int $messagesOut,
        public readonly int $bytesIn,
        public readonly int $bytesOut,
        /** The number of bytes in the queue of the connection. */
        public readonly int $queuedBytes,
        /** The TLS session, or null for a connection without TLS. */
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
