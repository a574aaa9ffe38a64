<?php

declare(strict_types=1);

namespace Fdpush\Webhook;

use Fdpush\Internal\JsonObject;

/** The events of one webhook request, in order. */
final class EventBatch
{
    public function __construct(
        /** The name of the server. */
        public readonly string $node,
        /** The identifier of the server's run. Each start of the server has a new identifier. */
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
