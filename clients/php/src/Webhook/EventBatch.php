<?php

declare(strict_types=1);

namespace Fdpush\Webhook;

use Fdpush\Internal\JsonObject;

/** A request with events, in order. */
final class EventBatch
{
    public function __construct(
        /** The name of the server. */
        public readonly string $node,
        /** The identifier of this start of the server. */
        public readonly string $run,
        /** The time of the request, in milliseconds since 1970. */
        public readonly int $sentMs,
        /** The number of events that the server has given up since its start. */
        public readonly int $givenUp,
        /** @var list<Event> */
        public readonly array $events,
    ) {
    }

    /** @internal */
    public static function read(JsonObject $body): self
    {
        return new self(
            $body->string('node'),
            $body->string('run'),
            $body->int('sent_ms'),
            $body->int('given_up'),
            array_map(Event::read(...), $body->objects('events')),
        );
    }
}
