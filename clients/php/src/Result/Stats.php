<?php

declare(strict_types=1);

namespace Fdpush\Result;

use Fdpush\Internal\JsonObject;

/** Statistics of the server. */
final class Stats
{
    public function __construct(
        public readonly string $version,
        public readonly int $uptimeMs,
        public readonly bool $isDraining,
        /** The number of open WebSockets. */
        public readonly int $open,
        /** The number of online uids. */
        public readonly int $users,
        /** The number of groups with members. */
        public readonly int $groups,
        /** The number of all connections, including connections to the API. */
        public readonly int $connections,
        public readonly int $connectionsMax,
        public readonly int $messagesIn,
        public readonly int $messagesOut,
        public readonly int $bytesIn,
        public readonly int $bytesOut,
        public readonly int $queuedBytes,
        /** The number of messages that slow readers did not get. */
        public readonly int $dropped,
        /** @var array<array-key, mixed> every member of the answer, by its name in the API */
        public readonly array $all,
    ) {
    }

    /** @internal */
    public static function read(JsonObject $answer): self
    {
        return new self(
            $answer->string('version'),
            $answer->int('uptime_ms'),
            $answer->bool('is_draining'),
            $answer->int('open'),
            $answer->int('users'),
            $answer->int('groups'),
            $answer->int('connections'),
            $answer->int('connections_max'),
            $answer->int('messages_in'),
            $answer->int('messages_out'),
            $answer->int('bytes_in'),
            $answer->int('bytes_out'),
            $answer->int('queued_bytes'),
            $answer->int('dropped'),
            $answer->members,
        );
    }
}
