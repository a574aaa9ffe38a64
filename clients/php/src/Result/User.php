<?php

declare(strict_types=1);

namespace Fdpush\Result;

use Fdpush\Internal\JsonObject;

/** An online uid in a list of users. */
final class User
{
    public function __construct(
        public readonly string $uid,
        /** The number of connections of the uid. */
        public readonly int $connections,
    ) {
    }

    /** @internal */
    public static function read(JsonObject $answer): self
    {
        return new self($answer->string('uid'), $answer->int('connections'));
    }
}
