<?php

declare(strict_types=1);

namespace Fdpush\Result;

use Fdpush\Internal\JsonObject;

/** The result of an executed push. `matched` is `queued` plus `dropped`. */
final class PushResult
{
    public function __construct(
        /** The number of connections that the target selects, without the excluded connections. */
        public readonly int $matched,
        /** The number of connections whose queue has the message. */
        public readonly int $queued,
        /** The number of connections that do not get the message, because they read too slowly. */
        public readonly int $dropped,
        /** @var list<string> the uids of the target that have no connection */
        public readonly array $offline,
        /** The `id` of the push, or null. */
        public readonly string|int|null $id,
    ) {
    }

    /** @internal */
    public static function read(JsonObject $answer): self
    {
        return new self(
            $answer->int('matched'),
            $answer->int('queued'),
            $answer->int('dropped'),
            $answer->strings('offline'),
            $answer->id(),
        );
    }
}
