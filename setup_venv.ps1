# Finds a Python 3.11-3.13 and hands over to unsloth_course/setup/install.py.
$install = Join-Path (Join-Path (Join-Path $PSScriptRoot "unsloth_course") "setup") "install.py"
# Without double quotes, because Windows PowerShell loses them on the way to a program.
$supported = "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))"
foreach ($python in @("py", "-3.12"), @("py", "-3.13"), @("py", "-3.11"), @("python"), @("python3")) {
    $program = $python[0]
    $version = @($python | Select-Object -Skip 1)
    if (-not (Get-Command $program -ErrorAction SilentlyContinue)) { continue }
    try { & $program @version -c $supported *> $null } catch { continue }
    if ($LASTEXITCODE -ne 0) { continue }
    & $program @version $install @args
    exit $LASTEXITCODE
}
Write-Host "No Python 3.11, 3.12 or 3.13 was found. Install one (VENV_SETUP.md says how) and run this again."
exit 1
