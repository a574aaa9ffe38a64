<?php

declare(strict_types=1);

namespace Fdpush\Result;

use Fdpush\Internal\JsonObject;

/** The result of a command that changes uids or groups of connections. */
final class ChangeResult
{
    public function __construct(
        /** The number of selected connections. */
        public readonly int $matched,
        /** The number of connections that the command changed. */
        public readonly int $changed,
    ) {
    }

    /** @internal */
    public static function read(JsonObject $answer): self
    {
        return new self($answer->int('matched'), $answer->int('changed'));
    }
}
