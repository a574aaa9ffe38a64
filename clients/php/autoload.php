<?php

declare(strict_types=1);

// Loads the classes of this directory without Composer.
spl_autoload_register(static function (string $class): void {
    foreach (['Fdpush\\Tests\\' => 'tests/', 'Fdpush\\' => 'src/'] as $prefix => $directory) {
        if (str_starts_with($class, $prefix)) {
            $path = __DIR__ . '/' . $directory . str_replace('\\', '/', substr($class, strlen($prefix))) . '.php';
            if (is_file($path)) {
                require $path;
            }
            return;
        }
    }
});
