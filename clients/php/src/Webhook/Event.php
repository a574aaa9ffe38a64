<?php

declare(strict_types=1);

namespace Fdpush\Webhook;

use Fdpush\Internal\JsonObject;

/** One event of the server. */
final class Event
{
    public function __construct(
        /** The number of the event in this run of the server: 1, 2, 3 and so on. */
        public readonly int $seq,
        /** `open`, `message`, `send`, `close`, `online` or `offline`; later versions may add types. */
        public readonly string $type,
        /** The time of the event, in milliseconds since 1970. */
        public readonly int $timeMs,
        /** The fd of the connection, or null for an event of a uid. */
        public readonly ?int $fd,
        /** The uid, or null for an anonymous connection. */
        public readonly ?string $uid,
        /** @var array<array-key, mixed> every member of the event, by its name, such as `text` or `code` */
        public readonly array $members,
    ) {
    }

    /** @internal */
    public static function read(JsonObject $event): self
    {
        return new self(
            $event->int('seq'),
            $event->string('type'),
            $event->int('time_ms'),
            $event->intOrNull('fd'),
            $event->stringOrNull('uid'),
            $event->members,
        );
    }
}
