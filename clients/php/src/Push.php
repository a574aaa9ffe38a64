<?php

declare(strict_types=1);

namespace Fdpush;

use Fdpush\Internal\Json;

/**
 * A push command: a target, a content, and options. Each method returns a changed copy.
 *
 *     Push::to(Target::group('room'))->data(['text' => 'hello'])->except(Target::uid('10010'))
 */
final class Push
{
    private const CONTENTS = ['data', 'text', 'binary'];

    /** @param array<string, string> $members the members of the command, encoded as JSON */
    private function __construct(private readonly array $members)
    {
    }

    /** Creates a push to the connections that a target selects. */
    public static function to(Target $target): self
    {
        return new self(array_map(Json::encode(...), $target->member()));
    }

    /** Sets the content to JSON data, which clients get inside a frame of the type `message`. */
    public function data(mixed $data): self
    {
        return $this->withContent('data', $data);
    }

    /** Sets the content to the payload of a text frame, in UTF-8. */
    public function text(string $text): self
    {
        return $this->withContent('text', $text);
    }

    /** Sets the content to the payload of a binary frame. */
    public function binary(string $bytes): self
    {
        return $this->withContent('binary', base64_encode($bytes));
    }

    /** Excludes the connections of these targets. A second call replaces the targets of the first call. */
    public function except(Target ...$targets): self
    {
        return $this->with('except', (object) Target::except(...$targets));
    }

    /** Sets the conflation key: with `slow_reader = "conflate"`, the message replaces an unsent message with this key. */
    public function key(string|int $key): self
    {
        return $this->with('key', $key);
    }

    /** Sends the message uncompressed. Use this option for a message that contains a secret and text of other users. */
    public function uncompressed(): self
    {
        return $this->with('compress', false);
    }

    /** Sets an identifier of at most 128 bytes. The result or the error of the push contains this identifier. */
    public function id(string|int $id): self
    {
        return $this->with('id', $id);
    }

    /** Returns the command as JSON, in one line. */
    public function json(): string
    {
        if (array_intersect_key($this->members, array_flip(self::CONTENTS)) === []) {
            throw new \LogicException('a push needs a content: data, text or binary');
        }
        $members = [];
        foreach ($this->members as $name => $json) {
            $members[] = "\"$name\":$json";
        }
        return '{' . implode(',', $members) . '}';
    }

    private function withContent(string $kind, mixed $value): self
    {
        return (new self(array_diff_key($this->members, array_flip(self::CONTENTS))))->with($kind, $value);
    }

    private function with(string $name, mixed $value): self
    {
        return new self([$name => Json::encode($value)] + $this->members);
    }
}
