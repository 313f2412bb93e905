import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { parseConfig } from '../../src/model/config.ts';
import { modelReport } from '../../src/model/model-report.ts';

const configOf = (file: string) => parseConfig(JSON.parse(readFileSync(file, 'utf8')), file);

test("DeepSeek-V3's counts are the published ones", () => {
  const report = modelReport(configOf('test/fixtures/deepseek-configs/hf-deepseek-v3-config.json'));
  // 671B in all (technical report, abstract); 36.7B active, 11.5B in the MTP module, which leaves out the 0.1B
  // projection that joins it to the main model (README_WEIGHTS.md).
  expect(report.parameters / 1e9).toBeCloseTo(671, 0);
  expect(report.activeParameters / 1e9).toBeCloseTo(36.6, 1);
  expect(report.mtpParameters / 1e9 - 0.103).toBeCloseTo(11.5, 1);
  // 70.272 KB a token in BF16 (arXiv:2505.09343, table 1).
  expect(report.cacheBytesPerToken.model).toBe(70_272);
  // 656 bytes a layer (FlashMLA, flash_mla_interface.py).
  expect(report.cacheBytesPerToken.fp8).toBe(656 * 61);
});

test('a grouped-query model is compared with its own heads ungrouped', () => {
  const { cacheBytesPerToken, layers } = modelReport(configOf('test/fixtures/golden/llama-tiny/config.json'));
  expect(cacheBytesPerToken.multiHead / cacheBytesPerToken.model).toBe(4);
  expect(cacheBytesPerToken.groupedQuery8).toBe(cacheBytesPerToken.multiHead);
  expect(layers).toBeGreaterThan(0);
});
