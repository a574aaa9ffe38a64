<?php

declare(strict_types=1);

namespace Fdpush\Internal;

/**
 * A JSON object from the server. Each method checks the type of a member.
 *
 * Unknown members are ignored, because later versions of the server may add members.
 *
 * @internal
 */
final class JsonObject
{
    /** @param array<array-key, mixed> $members */
    private function __construct(public readonly array $members)
    {
    }

    /** @throws \UnexpectedValueException the text is not a JSON object */
    public static function parse(string $json): self
    {
        try {
            return self::of(json_decode($json, true, 512, JSON_THROW_ON_ERROR));
        } catch (\JsonException $error) {
            throw new \UnexpectedValueException('expected a JSON object: ' . $error->getMessage(), 0, $error);
        }
    }

    private static function of(mixed $value): self
    {
        return is_array($value) ? new self($value) : throw new \UnexpectedValueException('expected a JSON object');
    }

    public function int(string $name): int
    {
        $value = $this->members[$name] ?? null;
        return is_int($value) ? $value : throw self::mismatch($name, 'an integer');
    }

    public function bool(string $name): bool
    {
        $value = $this->members[$name] ?? null;
        return is_bool($value) ? $value : throw self::mismatch($name, 'a boolean');
    }

    public function string(string $name): string
    {
        return $this->stringOrNull($name) ?? throw self::mismatch($name, 'a string');
    }

    public function stringOrNull(string $name): ?string
    {
        $value = $this->members[$name] ?? null;
        return $value === null || is_string($value) ? $value : throw self::mismatch($name, 'a string');
    }

    public function intOrNull(string $name): ?int
    {
        return isset($this->members[$name]) ? $this->int($name) : null;
    }

    /** Returns the `id` of a push, or null. */
    public function id(): string|int|null
    {
        $id = $this->members['id'] ?? null;
        return is_string($id) || is_int($id) ? $id : null;
    }

    public function objectOrNull(string $name): ?self
    {
        return isset($this->members[$name]) ? self::of($this->members[$name]) : null;
    }

    /** @return array<array-key, mixed> */
    public function array(string $name): array
    {
        $value = $this->members[$name] ?? null;
        return is_array($value) ? $value : throw self::mismatch($name, 'an array or an object');
    }

    /** @return list<string> */
    public function strings(string $name): array
    {
        $strings = [];
        foreach ($this->array($name) as $value) {
            $strings[] = is_string($value) ? $value : throw self::mismatch($name, 'an array of strings');
        }
        return $strings;
    }

    /** @return list<int> */
    public function ints(string $name): array
    {
        $ints = [];
        foreach ($this->array($name) as $value) {
            $ints[] = is_int($value) ? $value : throw self::mismatch($name, 'an array of integers');
        }
        return $ints;
    }

    /** @return list<self> */
    public function objects(string $name): array
    {
        return array_map(self::of(...), array_values($this->array($name)));
    }

    private static function mismatch(string $name, string $expected): \UnexpectedValueException
    {
        return new \UnexpectedValueException("the member \"$name\" must be $expected");
    }
}
